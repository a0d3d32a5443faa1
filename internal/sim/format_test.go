package sim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// device is one without a network, with a host key that costs nothing to make.
func device(t *testing.T, o Options) *Device {
	t.Helper()
	o.HostKey = testKey(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// script runs a script as the administrator and returns what it printed.
func (d *Device) script(t *testing.T, script string) string {
	t.Helper()
	var b strings.Builder
	if _, err := console.Run(t.Context(), d, "admin", script, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func admin() []User { return []User{{Name: "admin", Policies: allPolicies()}} }

// quiet runs a script that must print nothing.
func (d *Device) quiet(t *testing.T, script string) {
	t.Helper()
	if out := d.script(t, script); out != "" {
		t.Fatalf("%s printed %q", script, out)
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// Verbatim from an RDS2216 with 7.24.4 on a wide terminal [R].
const wideSample = `Flags: B - BLOCK-DEVICE; t - NVME-TCP-EXPORT
31 Bt type=file slot="vm-storage-001" slot-default="" parent="" fs=- model="/raid10/vm-storage-001.img" size=1 099 511 627 776 mount-filesystem=no mount-read-only=no compress=no sector-size=512 raid-master=none nvme-tcp-export=yes
      nvme-tcp-server-port=4420 nvme-tcp-server-nqn="nqn.2026-09.com.mikrotik:rds2216.vm-storage-001" nvme-tcp-server-allow-host-name="" iscsi-export=no nfs-sharing=no smb-sharing=no media-sharing=no media-interface=none swap=no
      file-path=/raid10/vm-storage-001.img file-size=1024.0GiB file-offset=0
`

func TestDetailOfAnExportedFileIsVerbatimOnAWideTerminal(t *testing.T) {
	d := device(t, Options{Users: admin(), Pools: []Pool{{Slot: "raid10", Filesystem: "xfs", SizeBytes: 16003143565312}}})
	d.quiet(t, `/disk/add type=file file-path=raid10/vm-storage-001.img file-size=1T slot=vm-storage-001 mount-filesystem=no`)
	d.quiet(t, `/disk/set vm-storage-001 nvme-tcp-export=yes nvme-tcp-server-port=4420 `+
		`nvme-tcp-server-nqn="nqn.2026-09.com.mikrotik:rds2216.vm-storage-001"`)
	r := d.fileRow(d.flash.Disks[0])
	r.index = 31
	got := render(t, listing{flags: diskFlags(), width: 240}, []*row{r}, console.PrintStyle{Form: console.Detail})
	if diff := cmp.Diff(crlf(wideSample), got); diff != "" {
		t.Error(diff)
	}
}

// Verbatim from an RDS over SSH without a terminal [R], but for the path, which its author shortened after the fact:
// with the path as printed here, nothing else explains where the lines break.
const execSample = `type=file slot="pvc-test-123" slot-default="" parent="" fs=-
               model="/storage-pool/test.img"
               size=53 687 091 200 mount-filesystem=yes mount-read-only=no
               compress=no sector-size=512 raid-master=none
               nvme-tcp-export=yes nvme-tcp-server-port=4420
               nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-test-123"
               nvme-tcp-server-allow-host-name="" iscsi-export=no
               nfs-sharing=no smb-sharing=no media-sharing=no
               media-interface=none swap=no
               file-path=/storage-pool/test.img
               file-size=50.0GiB file-offset=0
`

func TestDetailOfAnExportedFileIsVerbatimOverExec(t *testing.T) {
	d := device(t, Options{Users: admin()})
	d.quiet(t, `/file/add name=storage-pool/metal-csi type=directory`)
	d.quiet(t, `/disk/add type=file file-path=/storage-pool/metal-csi/pvc-test-123.img file-size=50G slot=pvc-test-123 `+
		`nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-test-123"`)
	got := d.script(t, `/disk/print detail where slot="pvc-test-123"`)
	_, got, _ = strings.Cut(got, "\r\n10 Bt ")
	got = strings.ReplaceAll(got, "/storage-pool/metal-csi/pvc-test-123.img", "/storage-pool/test.img")
	if diff := cmp.Diff(crlf(execSample), got); diff != "" {
		t.Error(diff)
	}
}

// Verbatim, as above: two items with an empty line between them. Their flags and most of their fields are not in it.
const twoSample = ` 0  type=file slot="pvc-test-1" size=53 687 091 200
               file-path=/storage-pool/test1.img file-size=50.0GiB
               nvme-tcp-export=yes nvme-tcp-server-port=4420
               nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-test-1"

 1  type=file slot="pvc-test-2" size=107 374 182 400
               file-path=/storage-pool/test2.img file-size=100.0GiB
               nvme-tcp-export=yes nvme-tcp-server-port=4420
               nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-test-2"
`

func TestDetailSeparatesItemsByAnEmptyLine(t *testing.T) {
	item := func(index int, n string, size int64) *row {
		return &row{index: index, fields: []field{
			{name: "type", value: "file"},
			{name: "slot", value: "pvc-test-" + n, shape: quoted},
			{name: "size", value: size, shape: spaced},
			{name: "file-path", value: "/storage-pool/test" + n + ".img"},
			{name: "file-size", value: size, shape: human},
			{name: "nvme-tcp-export", value: true},
			{name: "nvme-tcp-server-port", value: int64(4420)},
			{name: "nvme-tcp-server-nqn", value: "nqn.2000-02.com.mikrotik:pvc-test-" + n, shape: quoted},
			{name: "block-device", value: true, shape: hidden},
		}}
	}
	got := render(t, listing{width: execWidth}, []*row{item(0, "1", 50<<30), item(1, "2", 100<<30)},
		console.PrintStyle{Form: console.Detail})
	if diff := cmp.Diff(crlf(twoSample), got); diff != "" {
		t.Error(diff)
	}
}

// Verbatim from an RDS2216 with 7.24.4 on a wide terminal [R].
const poolSample = `Flags: B - BLOCK-DEVICE; M - MOUNTED; r - RAID-MEMBER
26 BM  type=raid slot="raid10" slot-default="" parent="" fs-label="ocp-storage" fs-uuid="40437dbc-2318-45dc-817b-b3bb95cf48ab" fs=xfs model="RAID0 striped" size=16 003 143 565 312 free=14 789 895 307 264 total-inodes=1 562 806 656
       free-inodes=1 562 806 652 use=8% mount-point="raid10" mount-filesystem=yes mount-read-only=no compress=no sector-size=512 raid-type=0 raid-device-count=4 raid-max-component-size=none raid-chunk-size=256K raid-master=none
       state="clean" raid-uuid="eadca0af-ecff031c-239758ad-951a47de" nvme-tcp-export=no iscsi-export=no nfs-sharing=no smb-sharing=no media-sharing=no media-interface=none swap=no
`

func TestDetailOfAPoolIsVerbatimOnAWideTerminal(t *testing.T) {
	d := device(t, Options{Pools: []Pool{{Slot: "raid10", Filesystem: "xfs", SizeBytes: 16003143565312}}})
	pool := d.poolRow(t.Context(), 1, 0, d.storage.pools[0])
	pool.index = 26
	var fields []field
	seen := map[string]console.Value{ // what differs from box to box
		"fs-label": "ocp-storage", "fs-uuid": "40437dbc-2318-45dc-817b-b3bb95cf48ab",
		"raid-uuid": "eadca0af-ecff031c-239758ad-951a47de", "free": int64(14789895307264), "use": percent(
			16003143565312-14789895307264, 16003143565312),
	}
	for _, f := range pool.fields {
		if v, ok := seen[f.name]; ok {
			f.value, f.later = v, nil
		}
		fields = append(fields, f)
		if f.name == "free" { // the simulator counts no inodes
			fields = append(fields, field{name: "total-inodes", value: int64(1562806656), shape: spaced},
				field{name: "free-inodes", value: int64(1562806652), shape: spaced})
		}
	}
	pool.fields = fields
	member := &row{index: 27, flags: "Br"}
	got := render(t, listing{flags: diskFlags(), width: 240}, []*row{pool, member}, console.PrintStyle{Form: console.Detail})
	if diff := cmp.Diff(crlf(poolSample+"\n27 B r \n"), got); diff != "" {
		t.Error(diff)
	}
}

// Verbatim from the manual [V], but for the header of flags, which newer versions print in full [R].
const tableSample = `Flags: B - BLOCK-DEVICE; M - MOUNTED
Columns: SLOT, MODEL, SERIAL, INTERFACE, SIZE, FREE, FS
#    SLOT  MODEL           SERIAL            INTERFACE                  SIZE           FREE  FS  
0 BM usb1  USB Flash Disk  FBA0911260071572  USB 2.00 480Mbps  2 004 877 312  1 921 835 008  ext4
`

func TestTableIsThatOfTheManual(t *testing.T) {
	r := &row{flags: "BM", fields: []field{
		{name: "slot", value: "usb1", shape: quoted},
		{name: "model", value: "USB Flash Disk", shape: quoted},
		{name: "serial", value: "FBA0911260071572", shape: quoted},
		{name: "interface", value: "USB 2.00 480Mbps", shape: quoted},
		{name: "size", value: int64(2004877312), shape: spaced},
		{name: "free", value: int64(1921835008), shape: spaced},
		{name: "fs", value: "ext4"},
	}}
	got := render(t, listing{flags: diskFlags(), width: execWidth, columns: diskMenu{}.Columns()}, []*row{r},
		console.PrintStyle{})
	if diff := cmp.Diff(crlf(tableSample), got); diff != "" {
		t.Error(diff)
	}
}

func TestFlagsHeaderIsPrintedWhenNothingMatches(t *testing.T) {
	d := device(t, Options{Users: admin()})
	for _, form := range []string{"", "detail "} {
		got := d.script(t, `/disk print `+form+`where slot="absent"`)
		if want := "Flags: B - BLOCK-DEVICE; M - MOUNTED; r - RAID-MEMBER\r\n"; got != want {
			t.Errorf("print %s: %q, want %q", form, got, want)
		}
	}
	if got := d.script(t, `/disk print terse where slot="absent"`); got != "" {
		t.Errorf("print terse: %q, want nothing", got)
	}
}

func TestLongValuesWrapInTheMiddle(t *testing.T) {
	r := &row{fields: []field{
		{name: "slot", value: "x", shape: quoted},
		{name: "file-path", value: "/" + strings.Repeat("long/", 30) + "x.img"},
	}}
	got := render(t, listing{width: execWidth}, []*row{r}, console.PrintStyle{Form: console.Detail})
	for line := range strings.SplitSeq(strings.TrimSuffix(got, "\r\n"), "\r\n") {
		if len(line) > execWidth-margin {
			t.Errorf("a line of %d columns: %q", len(line), line)
		}
	}
	joined := strings.ReplaceAll(got, "\r\n"+strings.Repeat(" ", execIndent), "")
	if !strings.Contains(joined, strings.Repeat("long/", 30)+"x.img") {
		t.Errorf("the path cannot be put together again: %q", got)
	}
}

func TestCommentsStandBeforeTheProperties(t *testing.T) {
	d := device(t, Options{Users: admin()})
	d.quiet(t, `/disk/add type=file file-path=storage-pool/x.img file-size=1M slot=x comment="rds-csi/1 cluster=a"`)
	got := d.script(t, `/disk/print detail proplist=comment,slot where slot="x"`)
	want := "Flags: B - BLOCK-DEVICE\r\n10 B ;;; rds-csi/1 cluster=a\r\n               slot=\"x\"\r\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func render(t *testing.T, l listing, chosen []*row, style console.PrintStyle) string {
	t.Helper()
	var b strings.Builder
	if err := l.print(&b, chosen, style); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
