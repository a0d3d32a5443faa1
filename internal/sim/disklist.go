package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// The hardware below each pool: four drives, as members of its array.
const drivesPerPool = 4

// diskFlags are the letters of /disk in the order of print [V].
func diskFlags() [][2]string {
	return [][2]string{
		{"X", "DISABLED"}, {"E", "EMPTY"}, {"B", "BLOCK-DEVICE"}, {"M", "MOUNTED"}, {"f", "RAID-MEMBER-FAILED"}, {"r", "RAID-MEMBER"},
		{"t", "NVME-TCP-EXPORT"},
	}
}

// list returns all rows of /disk: drives, pools, then items of type=file in the order they were made.
func (d *Device) list(ctx context.Context) []*row {
	all := d.hardware()
	for i, p := range d.storage.pools {
		all = append(all, d.poolRow(ctx, int64(len(all)+1), i, p))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dk := range d.flash.Disks {
		all = append(all, d.fileRow(dk))
	}
	return all
}

// hardware are the rows of the drives. Their ids are the first ones.
func (d *Device) hardware() []*row {
	all := make([]*row, 0, drivesPerPool*len(d.storage.pools))
	for _, p := range d.storage.pools {
		for i := range drivesPerPool {
			n := len(all) + 1
			flags, membership := d.storage.array(p.Slot).member(p.Slot, i)
			all = append(all, &row{id: itemID(int64(n)), flags: flags, fields: slices.Concat(
				[]field{
					{name: "type", value: "hardware"},
					{name: "slot", value: fmt.Sprintf("nvme%d", n), shape: quoted},
					{name: "slot-default", value: fmt.Sprintf("nvme%d", n), shape: quoted},
					{name: "parent", value: "", shape: quoted},
					{name: "fs", value: "-"},
					{name: "model", value: "SAMSUNG MZQL23T8HCLS-00A07", shape: quoted},
					{name: "serial", value: fmt.Sprintf("S64HNE0R9%05d", n), shape: quoted},
					{name: "interface", value: "NVMe 16.0 GT/s PCIe x4", shape: quoted},
					{name: "size", value: p.SizeBytes / 2, shape: spaced},
				},
				mountFields(false, false),
				membership,
				sharingFields(false),
				d.flagFields(flags),
			)})
		}
	}
	return all
}

// mountFields and sharingFields are those that every item has, in the order of print.
func mountFields(mountFilesystem, readOnly bool) []field {
	return []field{
		{name: "mount-filesystem", value: mountFilesystem},
		{name: "mount-read-only", value: readOnly},
		{name: "compress", value: false},
		{name: "sector-size", value: int64(512)},
	}
}

func sharingFields(export bool, server ...field) []field {
	return slices.Concat(
		[]field{{name: "nvme-tcp-export", value: export}},
		server,
		[]field{
			{name: "iscsi-export", value: false},
			{name: "nfs-sharing", value: false},
			{name: "smb-sharing", value: false},
			{name: "media-sharing", value: false},
			{name: "media-interface", value: "none"},
			{name: "swap", value: false},
		},
	)
}

// flagFields are the flags as scripts see them, from 7.20 on [S].
func (d *Device) flagFields(set string) []field {
	if !d.release.since(20) {
		return nil
	}
	var fields []field
	for _, f := range diskFlags() {
		if name := strings.ToLower(f[1]); name != "nvme-tcp-export" && name != "raid-member-failed" { // those are properties already
			fields = append(fields, field{name: name, value: strings.Contains(set, f[0]), shape: hidden})
		}
	}
	return append(fields, field{name: "formatting", value: false, shape: hidden})
}

// poolRow is an array with a mounted file system, with the fields of a real one [R].
func (d *Device) poolRow(ctx context.Context, id int64, index int, p Pool) *row {
	free := sync.OnceValue(func() int64 { return d.storage.free(ctx, p.Slot) })
	raidType, model := "6", "RAID6"
	if p.Filesystem == "xfs" {
		raidType, model = "0", "RAID0 striped"
	}
	r := &row{id: itemID(id), flags: "BM", fields: []field{
		{name: "type", value: "raid"},
		{name: "slot", value: p.Slot, shape: quoted},
		{name: "slot-default", value: "", shape: quoted},
		{name: "parent", value: "", shape: quoted},
		{name: "fs-label", value: p.Slot + "-fs", shape: quoted},
		{name: "fs-uuid", value: fmt.Sprintf("40437dbc-2318-45dc-817b-b3bb95cf48%02x", index), shape: quoted},
		{name: "fs", value: p.Filesystem},
		{name: "model", value: model, shape: quoted},
		{name: "size", value: p.SizeBytes, shape: spaced},
		{name: "free", later: func() console.Value { return free() }, shape: spaced},
		{name: "use", later: func() console.Value { return percent(p.SizeBytes-free(), p.SizeBytes) }},
		{name: "mount-point", value: p.Slot, shape: quoted},
	}}
	r.fields = slices.Concat(r.fields, mountFields(true, false), []field{
		{name: "raid-type", value: raidType},
		{name: "raid-device-count", value: int64(drivesPerPool)},
		{name: "raid-max-component-size", value: "none"},
		{name: "raid-chunk-size", value: "256K"},
		{name: "raid-master", value: "none"},
		{name: "state", value: d.storage.array(p.Slot).state, shape: quoted},
		{name: "raid-uuid", value: fmt.Sprintf("eadca0af-ecff031c-239758ad-951a47%02x", index), shape: quoted},
	}, sharingFields(false), d.flagFields(r.flags))
	return r
}

// percent rounds up, as df does; 4.9 % was seen as 5% and 7.6 % as 8% [R].
func percent(part, whole int64) string {
	return fmt.Sprintf("%d%%", (part*100+whole-1)/whole)
}

// fileRow is an item of type=file, with the fields of a real one in their order [R].
func (d *Device) fileRow(dk *disk) *row {
	fs := "-"
	if dk.fs != "" {
		fs = dk.fs
	}
	r := &row{id: itemID(dk.ID), flags: d.flagsOf(dk), disk: dk}
	if dk.Comment != "" {
		r.fields = append(r.fields, field{name: "comment", value: dk.Comment, shape: comment})
	}
	r.fields = append(r.fields,
		field{name: "type", value: "file"},
		field{name: "slot", value: dk.Slot, shape: quoted},
		field{name: "slot-default", value: "", shape: quoted},
		field{name: "parent", value: "", shape: quoted},
		field{name: "fs", value: fs},
		field{name: "model", value: "/" + dk.Path, shape: quoted},
		field{name: "size", value: dk.Size - dk.Offset, shape: spaced},
	)
	if dk.mounted {
		r.fields = append(r.fields, field{name: "mount-point", value: dk.Slot, shape: quoted})
	}
	r.fields = slices.Concat(r.fields,
		mountFields(dk.MountFilesystem, dk.MountReadOnly),
		[]field{{name: "raid-master", value: "none"}},
		sharingFields(dk.Export, d.serverFields(dk)...),
		[]field{
			{name: "file-path", value: "/" + dk.Path},
			{name: "file-size", value: dk.Size, shape: human},
			{name: "file-offset", value: dk.Offset},
		},
		d.flagFields(r.flags),
	)
	if strings.Contains(r.flags, "E") && d.quirks.is(quirkImageGone, noSize) {
		r.fields = slices.DeleteFunc(r.fields, func(f field) bool { return f.name == "size" || f.name == "file-size" })
	}
	return r
}

// serverFields are absent until one of them was set or the item was exported [R].
func (d *Device) serverFields(dk *disk) []field {
	if !dk.ServerSet {
		return nil
	}
	fields := []field{{name: "nvme-tcp-server-port", value: dk.Port}}
	if d.release.since(21) {
		fields = append(fields, field{name: "nvme-tcp-server-nqn", value: d.nqn(dk), shape: quoted})
	}
	return append(fields, field{name: "nvme-tcp-server-allow-host-name", value: dk.AllowHost, shape: quoted})
}

func (d *Device) flagsOf(dk *disk) string {
	flags := ""
	if dk.Disabled {
		flags += "X"
	}
	if _, ok := d.storage.stat(dk.Path); ok {
		flags += "B"
	} else {
		flags += "E" // [I]: an item whose file is gone
	}
	if dk.mounted {
		flags += "M"
	}
	if dk.Export {
		flags += "t"
	}
	return flags
}

// nqn is the name under which hosts find an item. Before 7.21 that is the slot [V]; the default since then is not
// documented [U]: it is taken to be like the one of iSCSI.
func (d *Device) nqn(dk *disk) string {
	switch {
	case !d.release.since(21):
		return dk.Slot
	case dk.NQN == "":
		return "nqn.2000-02.com.mikrotik:" + dk.Slot
	}
	return dk.NQN
}
