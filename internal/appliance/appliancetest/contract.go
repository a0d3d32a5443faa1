package appliancetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Settings are what the contract configures every RDS with. The pool must be mounted at storage-pool, with at least 2 TiB
// in it; a second one must not exist.
func Settings(t testing.TB) appliance.Settings {
	return appliance.Settings{
		Name: "rds1", Default: true, ClusterID: "homelab", Pool: parse(t, "/storage-pool/k8s"), NVMeAddress: "10.42.68.1", NVMePort: 4420,
	}
}

// PoolBytes is how large the pool is.
const PoolBytes = 4 * tib

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40

	adoptedSlot = "pvc-2f4a1c8e-7b60-4d5e-9a3b-0c1d2e3f4a5b"
	adoptedPath = "/storage-pool/metal-csi/" + adoptedSlot + ".img"
)

// Factory makes a fresh, empty RDS with Settings and PoolBytes, and the back door to it.
type Factory func(t *testing.T) (RDS, Device)

// Contract holds an RDS to what the driver relies on.
func Contract(t *testing.T, start Factory) {
	for name, test := range map[string]func(*testing.T, scene){
		"create":                 testCreate,
		"create again":           testCreateAgain,
		"create at once":         testCreateAtOnce,
		"create hostile names":   testCreateHostileNames,
		"create refuses":         testCreateRefuses,
		"create over a leftover": testCreateOverLeftover,
		"create elsewhere":       testCreateElsewhere,
		"pool full":              testPoolFull,
		"size":                   testSize,
		"get":                    testGet,
		"list":                   testList,
		"foreign":                testForeign,
		"delete":                 testDelete,
		"delete spares others":   testDeleteSparesOthers,
		"delete named files":     testDeleteNamedFiles,
		"delete an orphan file":  testDeleteOrphanFile,
		"delete, file elsewhere": testDeleteFileElsewhere,
		"export":                 testExport,
		"adopt":                  testAdopt,
		"mounted":                testMounted,
		"capacity":               testCapacity,
		"expand":                 testExpand,
		"expand refuses":         testExpandRefuses,
		"export grown":           testExportGrown,
		"snapshot":               testSnapshot,
		"snapshot refuses":       testSnapshotRefuses,
		"snapshot, attached":     testSnapshotAttached,
		"snapshots of others":    testSnapshotsOfOthers,
		"restore":                testRestore,
		"restore refuses":        testRestoreRefuses,
		"restore, attached":      testCloneAttached,
		"health":                 testHealth,
		"traffic":                testTraffic,
		"cancelled":              testCancelled,
	} {
		t.Run(name, func(t *testing.T) {
			rds, device := start(t)
			pool, err := rds.Capacity(t.Context(), appliance.Path{})
			if err != nil {
				t.Fatal(err)
			}
			test(t, scene{RDS: rds, device: device, settings: Settings(t), cow: pool.CopyOnWrite()})
		})
	}
}

// scene is one fresh RDS.
type scene struct {
	RDS
	device   Device
	settings appliance.Settings
	cow      bool // the pool is Btrfs: volumes are subvolumes
}

func (s scene) slot(name string) string { return appliance.SlotFor(s.settings.ClusterID, name) }

func (s scene) file(name string) string { return s.image(s.settings.Pool.Disk(), s.slot(name)) }

// image is where a volume lies in a directory.
func (s scene) image(dir, slot string) string {
	if s.cow {
		return dir + "/" + slot + "/volume.img"
	}
	return dir + "/" + slot + ".img"
}

// create makes a volume that is to succeed.
func (s scene) create(t *testing.T, req appliance.CreateRequest) appliance.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatalf("create %q: %v", req.Name, err)
	}
	return v
}

// unchanged runs something and proves that the device is as it was.
func (s scene) unchanged(t *testing.T, do func()) {
	t.Helper()
	disks, files := s.device.Disks(t), s.device.Files(t)
	do()
	if now := s.device.Disks(t); !reflect.DeepEqual(disks, now) {
		t.Errorf("disks were\n%+v\nand are\n%+v", disks, now)
	}
	if now := s.device.Files(t); !slices.Equal(files, now) {
		t.Errorf("files were %v and are %v", files, now)
	}
}

// is checks for a sentinel, and that the message names the RDS: it is what people get to read.
func is(t *testing.T, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("error is %v, want one that wraps %q", err, sentinel)
		return
	}
	if !strings.Contains(err.Error(), "rds1") && !errors.Is(err, appliance.ErrOutOfRange) {
		t.Errorf("error %q does not name the rds", err)
	}
}

func parse(t testing.TB, s string) appliance.Path {
	t.Helper()
	p, err := appliance.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// B6: mount-filesystem is no from the first moment on; the existing driver leaves RouterOS's default, yes.
func testCreate(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", Claim: "web/data", RequiredBytes: 5 * gib})
	want := appliance.Volume{
		ID: appliance.ID{RDS: "rds1", Slot: s.slot("pvc-1")}, Name: "pvc-1", Claim: "web/data", SizeBytes: 5 * gib,
		NQN: appliance.NQNFor(s.slot("pvc-1")), Address: "10.42.68.1", Port: 4420, Path: parse(t, s.file("pvc-1")),
		Exported: true, Owner: appliance.OwnerOurs,
	}
	if v != want {
		t.Errorf("created\n%+v, want\n%+v", v, want)
	}
	disk := Disk{
		Slot: v.ID.Slot, Cluster: "homelab", Name: "pvc-1", Claim: "web/data", Path: s.file("pvc-1"), SizeBytes: 5 * gib,
		NQN: v.NQN, Port: 4420, Exported: true,
	}
	if got := s.device.Disks(t); len(got) != 1 || got[disk.Slot] != disk {
		t.Errorf("on the device\n%+v, want\n%+v", got, disk)
	}
	if got := s.device.Files(t); !slices.Equal(got, []string{s.file("pvc-1")}) {
		t.Errorf("files: %v", got)
	}
	if v.ID.String() != "rds1/"+s.slot("pvc-1") {
		t.Errorf("handle %s", v.ID)
	}
}

func testCreateAgain(t *testing.T, s scene) {
	req := appliance.CreateRequest{Name: "pvc-1", Claim: "web/data", RequiredBytes: 5 * gib, LimitBytes: 6 * gib}
	first := s.create(t, req)
	s.unchanged(t, func() {
		if again := s.create(t, req); again != first {
			t.Errorf("again\n%+v, first\n%+v", again, first)
		}
		for _, c := range []struct {
			required, limit int64
			fits            bool
		}{{0, 0, true}, {4 * gib, 0, true}, {0, 5 * gib, true}, {5*gib + 1, 0, false}, {1 * gib, 4 * gib, false}} {
			_, err := s.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: c.required, LimitBytes: c.limit})
			if c.fits && err != nil {
				t.Errorf("[%d, %d]: %v", c.required, c.limit, err)
			}
			if !c.fits {
				is(t, err, appliance.ErrIncompatible)
			}
		}
		_, err := s.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", NVMePort: 4421})
		is(t, err, appliance.ErrIncompatible)
	})
}

// B16: eight parallel creates of one name gave the existing driver one success and seven internal errors.
func testCreateAtOnce(t *testing.T, s scene) {
	const callers = 16
	volumes, errs := make([]appliance.Volume, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			volumes[i], errs[i] = s.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		})
	}
	wg.Wait()
	for i := range callers {
		if errs[i] != nil || volumes[i] != volumes[0] {
			t.Errorf("caller %d: %+v, %v", i, volumes[i], errs[i])
		}
	}
	if disks, files := s.device.Disks(t), s.device.Files(t); len(disks) != 1 || len(files) != 1 {
		t.Errorf("on the device: %+v %v", disks, files)
	}
}

// B26: what users write arrives as text, or not at all.
func testCreateHostileNames(t *testing.T, s scene) {
	names := []string{
		`a"b`, `a;/system reboot`, `$x`, `[/disk remove [find]]`, `a\`, `{}`, "a\nb", "a\x00b", "a b", "né", "?", "%41", "name=x cluster=y",
		strings.Repeat(`"`, 128), strings.Repeat("é", 64), "rds-csi-foreign", "../../x",
	}
	for _, name := range names {
		v := s.create(t, appliance.CreateRequest{Name: name, Claim: name + "/" + name, RequiredBytes: mib})
		if v.Name != name {
			t.Errorf("%q became %q", name, v.Name)
		}
	}
	if got := len(s.device.Disks(t)); got != len(names) {
		t.Errorf("%d names made %d disks", len(names), got)
	}
}

func testCreateRefuses(t *testing.T, s scene) {
	s.unchanged(t, func() {
		for _, c := range []struct {
			req  appliance.CreateRequest
			want error
		}{
			{appliance.CreateRequest{}, appliance.ErrInvalid},
			{appliance.CreateRequest{Name: strings.Repeat("n", 129)}, appliance.ErrInvalid},
			{appliance.CreateRequest{Name: "x", RequiredBytes: 2, LimitBytes: 1}, appliance.ErrOutOfRange},
			{appliance.CreateRequest{Name: "x", Pool: parse(t, "/no-such-pool/k8s")}, appliance.ErrPoolNotFound},
		} {
			_, err := s.Create(t.Context(), c.req)
			is(t, err, c.want)
		}
	})
}

// A file without an item may be somebody's data: it is not opened, not overwritten, not removed.
func testCreateOverLeftover(t *testing.T, s scene) {
	for i, file := range []string{"/storage-pool/k8s/%s.img", "/storage-pool/k8s/%s/volume.img"} { // either layout
		name := fmt.Sprintf("pvc-%d", i)
		s.device.PutFile(t, fmt.Sprintf(file, s.slot(name)))
		s.unchanged(t, func() {
			_, err := s.Create(t.Context(), appliance.CreateRequest{Name: name, RequiredBytes: gib})
			is(t, err, appliance.ErrLeftover)
			if !strings.Contains(err.Error(), s.slot(name)) {
				t.Errorf("%q does not name the volume", err)
			}
		})
	}
}

func testCreateElsewhere(t *testing.T, s scene) {
	req := appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib, Pool: parse(t, "/storage-pool/a/b/c"), NVMeAddress: "10.0.0.9", NVMePort: 4421}
	v := s.create(t, req)
	if v.Path != parse(t, s.image("/storage-pool/a/b/c", v.ID.Slot)) || v.Address != "10.0.0.9" || v.Port != 4421 {
		t.Errorf("created %+v", v)
	}
	s.unchanged(t, func() {
		if again := s.create(t, req); again != v {
			t.Errorf("again %+v", again)
		}
		req.Pool = parse(t, "/storage-pool/a")
		_, err := s.Create(t.Context(), req)
		is(t, err, appliance.ErrIncompatible)
	})
	top := s.create(t, appliance.CreateRequest{Name: "pvc-2", RequiredBytes: gib, Pool: parse(t, "/storage-pool")})
	if top.Path != parse(t, s.image("/storage-pool", top.ID.Slot)) {
		t.Errorf("created %+v", top)
	}
	if err := s.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Error(err)
	}
	if files := s.device.Files(t); !slices.Equal(files, []string{top.Path.Disk()}) {
		t.Errorf("left: %v", files)
	}
}

func testPoolFull(t *testing.T, s scene) {
	s.unchanged(t, func() {
		_, err := s.Create(t.Context(), appliance.CreateRequest{Name: "huge", RequiredBytes: PoolBytes + gib})
		is(t, err, appliance.ErrNoSpace)
	})
	s.create(t, appliance.CreateRequest{Name: "huge", RequiredBytes: gib})
}

// B12: the existing driver cut 1.5 TiB to 1 TiB and said 1.5.
func testSize(t *testing.T, s scene) {
	for _, c := range []struct{ required, limit, want int64 }{
		{0, 0, gib}, {1536*gib + 1, 0, 1536*gib + mib}, {3 * mib / 2, 0, 2 * mib}, {5*mib + 1, 5*mib + 8192, 5*mib + 4096},
	} {
		name := "pvc-" + string(rune('a'+c.required%26))
		v := s.create(t, appliance.CreateRequest{Name: name, RequiredBytes: c.required, LimitBytes: c.limit})
		if on := s.device.Disks(t)[v.ID.Slot]; v.SizeBytes != c.want || on.SizeBytes != c.want {
			t.Errorf("[%d, %d]: said %d, made %d, want %d", c.required, c.limit, v.SizeBytes, on.SizeBytes, c.want)
		}
	}
}

func testGet(t *testing.T, s scene) {
	want := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if got, err := s.Get(t.Context(), want.ID.Slot); err != nil || got != want {
		t.Errorf("got\n%+v, %v, want\n%+v", got, err, want)
	}
	_, err := s.Get(t.Context(), s.slot("absent"))
	is(t, err, appliance.ErrNotFound)
}

func testList(t *testing.T, s scene) {
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("empty rds: %+v, %v", list, err)
	}
	ours := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s.device.PutDisk(t, adoptable())
	s.device.PutDisk(t, foreign("other"))
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	owners := map[string]appliance.Owner{}
	for _, v := range list {
		owners[v.ID.Slot] = v.Owner
	}
	want := map[string]appliance.Owner{
		ours.ID.Slot: appliance.OwnerOurs, adoptedSlot: appliance.OwnerNone, foreign("other").Slot: appliance.OwnerForeign,
	}
	if !reflect.DeepEqual(owners, want) {
		t.Errorf("owners: %v, want %v", owners, want)
	}
	if i := slices.IndexFunc(list, func(v appliance.Volume) bool { return v.ID.Slot == ours.ID.Slot }); i < 0 || list[i] != ours {
		t.Errorf("listed\n%+v, created\n%+v", list, ours)
	}
}

func adoptable() Disk {
	return Disk{
		Slot: adoptedSlot, Path: adoptedPath, SizeBytes: 10 * gib, NQN: appliance.NQNFor(adoptedSlot), Port: 4420, Exported: true,
		MountFilesystem: true,
	}
}

// foreign is another cluster's volume; its slot could be anything.
func foreign(cluster string) Disk {
	slot := appliance.SlotFor("homelab", "taken by "+cluster)
	return Disk{
		Slot: slot, Cluster: cluster, Name: "taken", Path: "/storage-pool/k8s/" + slot + ".img", SizeBytes: gib,
		NQN: appliance.NQNFor(slot), Port: 4420, Exported: true,
	}
}
