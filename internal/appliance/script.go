package appliance

import (
	"github.com/rds-csi/rds-csi/internal/routeros"
)

// The scripts. Each is one exec, and none of its statements runs unless all parse. Variables are called by one letter:
// in a where clause the name of a property would mean the property.

// printDisk ends every script about one slot: what is true now.
func printDisk(b *routeros.Builder, slot string) *routeros.Builder {
	return b.Add(`:put [:serialize to=json options=json.no-string-conversion
		[/disk print detail as-value where slot=?]]`, routeros.Text(slot))
}

func getScript(slot string) *routeros.Builder {
	return printDisk(routeros.NewScript("disk_get"), slot)
}

// listScript takes all rows and leaves the choice to us: a where clause fails silently when a type does not match [R].
func listScript() *routeros.Builder { return printDisks(routeros.NewScript("disk_list")) }

// printDisks prints all disk items there are.
func printDisks(b *routeros.Builder) *routeros.Builder {
	return b.Add(`:put [:serialize to=json options=json.no-string-conversion [/disk print detail as-value]]`)
}

// createScript looks for the file before it looks for the item, so that a concurrent create of the same volume is seen as
// a volume and not as a leftover. The pool must be mounted, or the directory would be made on the system's small flash. What
// kind of file system it is the device says in the same script.
func createScript(p plan) *routeros.Builder {
	b := routeros.NewScript("disk_add").
		Add(`:local s ?; :local a (? . "/" . $s); :local p ($a . ".img"); :local q ($a . ?)`,
			routeros.Text(p.slot), routeros.Text(p.dir.File()), routeros.Text("/"+imageName)).
		Add(`:local f ([:len [/file find where name=$p]]+[:len [/file find where name=$q]])`).
		Add(`:local d [/disk find where slot=$s]`).
		Add(`:if ([:len $d]=0) do={:if ($f>0) do={:error ?}; ?;
			:if ([/disk get $m fs]="btrfs") do={:local l [/disk get $m fs-label]; ?; :set p $q} else={?};
			/disk/add type=file file-path=("/" . $p) file-size=? slot=$s mount-filesystem=no comment=? ?}`,
			routeros.Text(sayLeftover), findPool(p.dir),
			subvolumeOrSay(makeSubvolumes(append(p.dir.directories(), p.within.Dir()))),
			makeDirectories(p.dir.directories()),
			routeros.Number(p.size), routeros.Text(p.comment), exported(p))
	return printDisk(b, p.slot)
}

// findPool leaves the item that holds the file system in $m. Whether one that is not mounted still shows a mount point is not
// known [U].
func findPool(dir Path) routeros.Value {
	at, away := routeros.Text(dir.MountPoint()), routeros.Text(sayNoPool+" /"+dir.MountPoint())
	return routeros.Part(`:local m [/disk find where mount-point=?]; :if ([:len $m]=0) do={:error ?};
		:foreach i in=[/disk print detail as-value where mount-point=?] do={:local h ("" . ($i->"mounted")); :if (($h="false") || ($h="no")) do={:error ?}}`,
		at, away, at, away)
}

// makeHome makes the directories that a file is to lie in, as the pool is.
func makeHome(dir Path) routeros.Value {
	return routeros.Part(`:if ([:len [/file find where name=?]]=0) do={?;
		:if ([/disk get $m fs]="btrfs") do={:local l [/disk get $m fs-label]; ?} else={?}}`,
		routeros.Text(dir.File()), findPool(dir), subvolumeOrSay(makeSubvolumes(dir.directories())), makeDirectories(dir.directories()))
}

// exported are the arguments that export an item.
func exported(p plan) routeros.Value {
	return routeros.Part(`nvme-tcp-export=yes nvme-tcp-server-port=? nvme-tcp-server-nqn=?`,
		routeros.Number(int64(p.port)), routeros.Text(NQNFor(p.slot)))
}

// makeDirectories: whether /disk add makes a missing directory itself is not known [U].
func makeDirectories(dirs []Path) routeros.Value {
	made := routeros.Part("")
	for _, dir := range dirs {
		made = routeros.Part(`??; `, made, unlessThere(dir, routeros.Part(`/file add name=? type=directory`, routeros.Text(dir.File()))))
	}
	return made
}

// refuseForeign stops a script before it changes an item that is not this cluster's. $d is the item.
func refuseForeign(cluster, slot string) routeros.Value {
	prefix := owned(cluster)
	check := routeros.Part(`[:pick $c 0 ?]!=?`, routeros.Number(int64(len(prefix))), routeros.Text(prefix))
	if adoptableSlot(slot) {
		check = routeros.Part(`([:len $c]>0) && (?)`, check)
	}
	return routeros.Part(`:local c ("" . [/disk get $d comment]); :if (?) do={:error ?}`, check, routeros.Text(sayForeign))
}

// refuseSource stops a script that would copy an item, before it changes anything: one that is not this cluster's, that the RDS
// itself has mounted or may mount at any moment, so that nobody knows what it writes, or that is itself not finished. $d is the
// item. What the device does not say is no permission.
func refuseSource(cluster, slot string) routeros.Value {
	return routeros.Part(`?; :if ($c~?) do={:error ?};
		:foreach i in=[/disk print detail as-value where slot=?] do={:local h ("" . ($i->"mounted")); :local k ("" . ($i->"mount-filesystem"));
			:if (($h="true") || ($h="yes") || (($k!="false") && ($k!="no"))) do={:error ?}}`,
		refuseUnowned(cluster, slot), routeros.Text(unfinishedMark+"$"), routeros.Text(sayCopying), routeros.Text(slot), routeros.Text(sayMounted))
}

// refuseUnowned is refuseForeign that does not let an item without owner pass either: whose it is has to be written down before
// anything is done that cannot be taken back.
func refuseUnowned(cluster, slot string) routeros.Value {
	refuse := refuseForeign(cluster, slot)
	if !adoptableSlot(slot) {
		return refuse
	}
	return routeros.Part(`?; :if ([:len $c]=0) do={:error ?}`, refuse, routeros.Text(sayUnowned))
}

// exportScript changes only what is wrong: whether a set of an unchanged value disturbs connected hosts is not known [U].
//
// Every new export shows the size that the volume has, so the mark that it has grown goes with it.
func exportScript(cluster string, todo repair, refuse routeros.Value) *routeros.Builder {
	v, slot := todo.v, todo.v.ID.Slot
	changes := routeros.Part("")
	if v.MountFilesystem {
		changes = routeros.Part(` mount-filesystem=no`)
	}
	if todo.lost() || todo.anew() {
		changes = routeros.Part(`? nvme-tcp-export=yes nvme-tcp-server-port=? nvme-tcp-server-nqn=?`,
			changes, routeros.Number(int64(v.Port)), routeros.Text(NQNFor(slot)))
	}
	if v.Owner == OwnerNone { // the existing driver's slots are the names of its PersistentVolumes
		changes = routeros.Part(`? comment=?`, changes, routeros.Text(tag{cluster: cluster, name: slot}.String()))
	}
	set := routeros.Part(`/disk set $d?`, changes)
	if todo.anew() || v.GrownTo > 0 && !v.Exported {
		set = forgetGrowth(v.GrownTo, todo.anew(), changes)
	}
	b := routeros.NewScript("disk_export").
		Add(`:local d [/disk find where slot=?]`, routeros.Text(slot)).
		Add(`:if ([:len $d]=0) do={:error ?}`, routeros.Text(sayAbsent)).
		Add(`?`, refuseForeign(cluster, slot)).
		Add(`??`, refuse, set)
	return printDisk(b, slot)
}

// forgetGrowth makes the changes if $c, the comment, still has the mark that was seen, and takes that from it. A script that was thought
// lost, and runs after it was repeated, finds no mark, or that of a later growth, for a volume only grows; so it takes no export
// away that a node uses by then. One that was not repeated would find it: see dialTCP in routeros for why it does not run late.
// That the export is taken away when the command returns is inferred from the console's other commands [I]; were it not, the node would
// refuse to stage the volume, and say what to do.
func forgetGrowth(grownTo int64, anew bool, changes routeros.Value) routeros.Value {
	withdraw := routeros.Part("")
	if anew {
		withdraw = routeros.Part(`/disk set $d nvme-tcp-export=no; `)
	}
	mark := grownMark(grownTo)
	return routeros.Part(`:if ($c~?) do={:local n [:find ($c . " ") ?]; :local e ($n+?); :local k [:pick $c 0 $n];
		:if ([:len $c]>$e) do={:set k ($k . [:pick $c $e [:len $c]])};
		?/disk set $d? comment=$k}`,
		routeros.Text(mark+"( |$)"), routeros.Text(mark+" "), routeros.Number(int64(len(mark))), withdraw, changes)
}

// deleteScript removes the item, then its file, then the subvolume around it, after everything that speaks against it has been
// looked at.
//
// Every item's path is compared as text, in both forms. A where clause would be shorter, but on a type mismatch it finds
// nothing and says nothing [R], and "nothing" is here the permission to delete. The comparison proves itself: it has to
// find the item that is to go. One print and not a get per item, so that the cost grows with the items and not faster.
//
// The driver lets one call at a time have a volume. Should another controller make the volume meanwhile, its file is not the one
// that was found first, and a file is not removed once there is an item again. A subvolume goes only when its image was the last
// thing in it: what somebody else has put there would go with it.
//
// A pool that is away shows no file. Then nothing is absent, and nothing is removed.
func deleteScript(cluster, slot string, o orphan, claims routeros.Value) *routeros.Builder {
	return routeros.NewScript("disk_remove").
		Add(`:local s ?; :local p ?; :local u 0; :local w ""; :local v 0; :local o ""`, routeros.Text(slot), routeros.Text(o.flat.File())).
		Add(`:if ([:len [/file find where name=?]]>0) do={:set p ?}`, routeros.Text(o.within.Dir().File()), routeros.Text(o.within.File())).
		Add(`:local f [/file find where name=$p]; :local d [/disk find where slot=$s]`).
		Add(`:if ([:len $d]>0) do={?;
			:set p ("" . [/disk get $d file-path]);
			:if ([:pick $p 0 1]="/") do={:set p [:pick $p 1 [:len $p]]};
			:if (!($p~("./" . $s . "([.]img|/volume[.]img)\$"))) do={:error ?}}`,
			refuseUnowned(cluster, slot), routeros.Text(sayBase)).
		Add(`:if ($p!="") do={:local n [:find $p "/"]; :set o [:pick $p 0 $n]; :if ([:len [/disk find where mount-point=$o]]=0) do={:error (? . " /" . $o)}}`,
			routeros.Text(sayNoPool)).
		Add(`:foreach i in=[/disk print detail as-value] do={
			:local q ("" . ($i->"file-path")); :local h ("" . ($i->"mounted"));
			:if (($o!="") && (("" . ($i->"mount-point"))=$o) && (($h="false") || ($h="no"))) do={:error (? . " /" . $o)};
			:if (($q!="") && (($q=$p) || ($q=("/" . $p)))) do={:set u ($u+1)}}`, routeros.Text(sayNoPool)).
		Add(`:if ($u!=[:len $d]) do={:error ?}`, routeros.Text(sayNamed)).
		Add(`?`, claims).
		Add(`:if ([:len $d]>0) do={/disk remove $d; :set f [/file find where name=$p]}`).
		Add(`:if ($p~"/volume[.]img\$") do={:set w [:pick $p 0 ([:len $p]-?)]; :set v [:len [/file find where name=$w]]}`,
			routeros.Number(int64(len(imageName)+1))).
		Add(`:if ([:len [/disk find where slot=$s]]=0) do={/file remove $f; ?
			:if ($v>0) do={:if ([:len [/file find where name~("^" . $w . "/")]]=0) do={
				:local n [:find $w "/"]; :local m [:pick $w 0 $n]; :local x [:pick $w ($n+1) [:len $w]];
				:foreach i in=[/disk print detail as-value where mount-point=$m] do={:local l ($i->"fs-label");
					/disk/btrfs/subvolume remove [find where name=$s and fullname=$x and fs=$l]}}}}`, forgetCopies(o)).
		Add(`:put ([:len $d]+[:len $f]+$v)`).
		Add(`:put [:len [/disk find where slot=$s]]`).
		Add(`:put ([:len [/file find where name=$p]]+[:len [/file find where name=$w]])`)
}

// claimsAbout is the regular expression of the claims of copies that are made of a volume, or are to become it.
func claimsAbout(slot string) string {
	return "([.]" + slot + "|/" + slot + "[.][a-z0-9-]+)[.]copying$"
}

// claimScript writes down whose an item without owner is from now on.
func claimScript(cluster, slot string) *routeros.Builder {
	prefix := owned(cluster)
	return routeros.NewScript("disk_claim").
		Add(`:local d [/disk find where slot=?]; :if ([:len $d]=0) do={:error ?}; ?`, routeros.Text(slot), routeros.Text(sayAbsent), refuseForeign(cluster, slot)).
		Add(`:if ([:len $c]=0) do={/disk set $d comment=?}`, routeros.Text(tag{cluster: cluster, name: slot}.String())).
		Add(`:set c ("" . [/disk get $d comment]); :if ([:pick $c 0 ?]!=?) do={:error ?}`,
			routeros.Number(int64(len(prefix))), routeros.Text(prefix), routeros.Text(sayForeign))
}

// forgetCopies removes what a copy into the volume, under way or done, has left beside its image.
func forgetCopies(o orphan) routeros.Value {
	if o.flat.IsZero() {
		return routeros.Part("")
	}
	return routeros.Part(`/file remove [find where name~?]; `, routeros.Text(marksOf(o.flat.Dir(), o.flat.stem())))
}
