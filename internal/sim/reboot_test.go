package sim_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

func TestReboot(t *testing.T) {
	r := start(t, quirk("reboot-time", "1s"))
	r.add("pvc-1", oneExport+` comment="keep me"`)
	before, _ := r.Device.Disk("pvc-1")
	dead := make(chan error)
	go func() { dead <- r.csi.Wait() }()
	cut := make(chan result)
	go func() { cut <- execOn(r.admin, `:put begun; :delay 1h; /file add name=done.txt`) }()
	within(t, "the command begins", func() bool { return len(r.Device.Commands()) == 3 })
	began := time.Now()
	back := make(chan error)
	go func() { back <- r.Device.Reboot(t.Context()) }()
	if err := <-dead; err == nil {
		t.Error("the connection ended in order")
	}
	if res := <-cut; res.status != -1 {
		t.Errorf("the command that ran: %+v", res)
	}
	within(t, "connections are refused", func() bool { return refused(r.Address) })
	within(t, "the export goes", func() bool { one, _ := r.Device.Disk("pvc-1"); return !one.Up })
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("the reboot took %s", took)
	}
	r.admin = r.dial("admin", ssh.PublicKeys(r.AdminSigner)) // it answers as soon as Reboot has returned
	r.prints(`:put [/disk get pvc-1 comment]`, "keep me")
	if after, _ := r.Device.Disk("pvc-1"); after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, ok := r.Device.File("done.txt"); ok {
		t.Error("a command ran on through the reboot")
	}
}

func TestExportsAfterReboot(t *testing.T) {
	for value, kept := range map[string]bool{"kept": true, "lost": false} {
		r := start(t, quirk("reboot-time", "0s", "exports-after-reboot", value))
		r.add("pvc-1", oneExport)
		if err := r.Device.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if one, _ := r.Device.Disk("pvc-1"); one.Export != kept || one.Up != kept {
			t.Errorf("%s: %+v", value, one)
		}
	}
}

func TestRebootCommand(t *testing.T) {
	r := start(t, quirk("reboot-time", "0s"))
	dead := make(chan error)
	go func() { dead <- r.admin.Wait() }()
	if res := execOn(r.admin, `/system reboot`); res.out != "" {
		t.Errorf("%+v", res)
	}
	if err := <-dead; err == nil {
		t.Error("the connection ended in order")
	}
	within(t, "the device is back", func() bool {
		c, err := r.tryDial("admin", ssh.PublicKeys(r.AdminSigner))
		return err == nil && execOn(c, `:put back`).out == "back\r\n"
	})
}

func TestRebootEndsEarlyWithItsContext(t *testing.T) {
	r := start(t, quirk("reboot-time", "1h"))
	ctx, cancel := context.WithCancel(t.Context())
	back := make(chan error)
	go func() { back <- r.Device.Reboot(ctx) }()
	within(t, "connections are refused", func() bool { return refused(r.Address) })
	cancel()
	if err := <-back; err == nil {
		t.Error("no word of the context")
	}
	within(t, "the device is back", func() bool {
		_, err := r.tryDial("csi", ssh.PublicKeys(r.Signer))
		return err == nil
	})
}

func TestADeviceThatIsDownCanBeStopped(t *testing.T) {
	r := start(t, quirk("reboot-time", "1h"))
	if res := execOn(r.admin, `/system reboot`); res.out != "" {
		t.Errorf("%+v", res)
	}
	within(t, "connections are refused", func() bool { return refused(r.Address) })
	r.Stop() // hangs if it waits for the reboot to end
}

func TestRebootWithoutAListener(t *testing.T) {
	d, err := sim.New(sim.Options{Dir: t.TempDir(), Quirks: map[string]string{"reboot-time": "0s"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Reboot(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnotherProcessFindsTheDeviceAsItWas(t *testing.T) {
	o := sim.Options{Dir: t.TempDir()}
	first := start(t, o)
	first.add("pvc-1", oneExport)
	first.ok(`/system identity set name=rds1`)
	before, _ := first.Device.Disk("pvc-1")
	second := start(t, o) // the first is not stopped: as after kill -9
	if after, ok := second.Device.Disk("pvc-1"); !ok || after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
	second.prints(`:put [/system identity get name]`, "rds1")
	out := second.run(`:put [/disk add type=file slot=b file-path=storage-pool/b.img file-size=1M]`)
	if out == before.ID+"\r\n" {
		t.Errorf("the id %s was given twice", before.ID)
	}
}

func TestVersions(t *testing.T) {
	const add = `/disk add type=file slot=x file-path=storage-pool/x.img file-size=1M nvme-tcp-export=yes `
	for version, nqn := range map[string]bool{"7.16": false, "7.20.8": false, "7.21": true, "7.23": true, "7.24.4": true} {
		r := start(t, sim.Options{Version: version})
		r.prints(`:put [/system resource get version]`, version+" (stable)")
		out := r.run(add + `nvme-tcp-server-nqn=nqn.x`)
		_, made := r.Device.Disk("x")
		if made != nqn || (out == "") != nqn {
			t.Errorf("%s: with an NQN printed %q, the item is there: %v", version, out, made)
		}
	}
	r := start(t, sim.Options{Version: "7.20"})
	r.ok(add)
	if x, _ := r.Device.Disk("x"); x.NQN != "x" {
		t.Errorf("before 7.21 the NQN is the slot, not %q", x.NQN)
	}
	if _, err := sim.New(sim.Options{Dir: t.TempDir(), Version: "6.49"}); err == nil {
		t.Error("RouterOS 6 was taken")
	}
}

func TestSystemMenus(t *testing.T) {
	r := start(t, sim.Options{Identity: "rds7"})
	r.prints(`:put [/system identity get name]`, "rds7")
	r.prints(`:put [/system resource get board-name]`, "RDS2216-2XG-4S+4XS-2XQ")
	r.prints(`:put [/system health get cpu-temperature value]`, "48")
	r.prints(`:put [:len [/user find]]`, "2")
	for _, command := range []string{`/system resource print`, `/system identity print`, `/system health print`, `/user print`} {
		if out := r.run(command); len(out) < 10 {
			t.Errorf("%s printed %q", command, out)
		}
	}
	r.fails(`/system print`, "bad command name print")
}

// Everything at once, for the race detector; and nothing may be lost.
func TestManyCommandsAtOnce(t *testing.T) {
	r := start(t, quirk("reboot-time", "1ms"))
	r.add("base", "")
	const workers, each = 6, 8
	var work sync.WaitGroup
	for w := range workers {
		c := r.dial("csi", ssh.PublicKeys(r.Signer))
		work.Go(func() {
			for i := range each {
				slot := fmt.Sprintf("v-%d-%d", w, i)
				for _, command := range []string{
					`/disk add type=file slot=` + slot + ` file-path=storage-pool/k8s/` + slot + `.img file-size=1M nvme-tcp-export=yes`,
					`:put [:serialize to=json [/disk print detail as-value where type=file]]`,
					`/disk set ` + slot + ` file-size=2M`,
					`/file print`,
				} {
					if res := execOn(c, command); res.err != nil || res.status != 0 {
						t.Errorf("%s: %+v", command, res)
					}
				}
			}
		})
	}
	work.Wait()
	if got := len(r.Device.Disks()); got != workers*each+1 {
		t.Errorf("%d items, want %d", got, workers*each+1)
	}
	for _, one := range r.Device.Disks() {
		if one.Slot != "base" && (one.FileSize != 2<<20 || !one.Up) {
			t.Errorf("%+v", one)
		}
	}
}

func TestRebootsUnderLoad(t *testing.T) {
	r := start(t, quirk("reboot-time", "1ms"))
	r.add("base", oneExport)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() { loadUntil(ctx, r.Server) })
	}
	for range 5 {
		if err := r.Device.Reboot(ctx); err != nil {
			t.Error(err)
		}
	}
	cancel()
	work.Wait()
	// A reboot may have cut a script short that had switched the export off: then it stays off, and nothing else.
	if one, ok := r.Device.Disk("base"); !ok || one.Up != one.Export {
		t.Errorf("%+v", one)
	}
}

// loadUntil keeps a device busy; what fails in a reboot is tried again.
func loadUntil(ctx context.Context, s *simtest.Server) {
	for ctx.Err() == nil {
		c, err := login(s, "csi", deadline, ssh.PublicKeys(s.Signer))
		if err != nil {
			continue
		}
		for ctx.Err() == nil && execOn(c, `/disk set base nvme-tcp-export=no; /disk set base nvme-tcp-export=yes`).err == nil {
			continue
		}
		_ = c.Close()
	}
}
