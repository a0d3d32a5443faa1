package sim_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
)

const addFile = `/file add name=done.txt`

func inject(t *testing.T, r *rig, spec string) {
	t.Helper()
	if err := r.Device.Inject(spec); err != nil {
		t.Fatal(err)
	}
}

func TestDropBeforeAndAfterTheEffect(t *testing.T) {
	for kind, effect := range map[string]bool{"drop-before": false, "drop-after": true} {
		r := start(t, sim.Options{})
		inject(t, r, kind+"@/file/add:1")
		r.prints(`:put other`, "other")
		other := make(chan error)
		go func() { other <- r.csi.Wait() }()
		res := execOn(r.csi, addFile)
		if res.status != -1 || res.out != "" {
			t.Errorf("%s: %+v, want a dead channel and no reply", kind, res)
		}
		if err := <-other; err == nil {
			t.Errorf("%s: the connection ended in order", kind)
		}
		if _, ok := r.Device.File("done.txt"); ok != effect {
			t.Errorf("%s: the effect is there: %v", kind, ok)
		}
		r.run(addFile) // the count is used up, and the other connection lives
	}
}

func TestDelayComesBeforeTheEffectAndEndsInIt(t *testing.T) {
	r := start(t, sim.Options{})
	inject(t, r, "delay=150ms@/file add")
	began := time.Now()
	done := make(chan result)
	go func() { done <- execOn(r.csi, addFile) }()
	within(t, "the command arrives", func() bool { return r.Device.Counters().Commands == 1 })
	if _, ok := r.Device.File("done.txt"); ok && time.Since(began) < 150*time.Millisecond {
		t.Error("the effect was there at once")
	}
	if res := <-done; res.status != 0 || time.Since(began) < 150*time.Millisecond {
		t.Errorf("%+v after %s", res, time.Since(began))
	}
	if _, ok := r.Device.File("done.txt"); !ok {
		t.Error("no effect")
	}
}

func TestSilenceOfOneCommand(t *testing.T) {
	r := start(t, sim.Options{})
	inject(t, r, "silence@/file/add:1")
	s, err := r.csi.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(addFile); err != nil {
		t.Fatal(err)
	}
	if res := execOn(r.csi, `:put alive`); res.out != "alive\r\n" {
		t.Errorf("another channel of the connection: %+v", res)
	}
	ended := make(chan error)
	go func() { ended <- s.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("the command was answered: %v", err)
	default:
	}
	if err := r.csi.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the command ended well")
	}
	if _, ok := r.Device.File("done.txt"); ok {
		t.Error("it had an effect")
	}
}

func TestSilenceOfTheWholeDevice(t *testing.T) {
	r := start(t, sim.Options{})
	inject(t, r, "silence")
	answers := make(chan error, 2)
	go func() {
		_, _, err := r.csi.SendRequest("keepalive@openssh.com", true, nil)
		answers <- err
	}()
	go func() {
		res := execOn(r.admin, `:put alive`)
		answers <- res.err
	}()
	fresh := func() error { // TCP is accepted, and nothing comes
		c, err := login(r.Server, "csi", time.Second, ssh.PublicKeys(r.Signer))
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	if err := fresh(); err == nil {
		t.Error("a new connection was answered")
	}
	select {
	case err := <-answers:
		t.Errorf("an old connection was answered: %v", err)
	default:
	}
	r.Device.ClearFaults()
	r.dial("csi", ssh.PublicKeys(r.Signer))
	_, _ = r.csi.Close(), r.admin.Close() // what fell silent stays so until given up
	for range 2 {
		if err := <-answers; err == nil {
			t.Error("an old connection was answered late")
		}
	}
	if got := r.Device.Commands(); len(got) != 0 {
		t.Errorf("commands were taken: %q", got)
	}
}

func TestSilenceIsCounted(t *testing.T) {
	r := start(t, sim.Options{})
	inject(t, r, "silence:1")
	if _, err := login(r.Server, "csi", time.Second, ssh.PublicKeys(r.Signer)); err == nil {
		t.Error("the first connection was answered")
	}
	r.dial("csi", ssh.PublicKeys(r.Signer))
	r.prints(`:put x`, "x")
}

func TestGarbage(t *testing.T) {
	for spec, check := range map[string]func(string) bool{
		"garbage:1":     func(out string) bool { return !strings.Contains(out, "marker") && len(out) > 20 },
		"garbage=cut:1": func(out string) bool { return strings.HasPrefix(out, "some text") && !strings.Contains(out, "marker") },
	} {
		r := start(t, sim.Options{})
		inject(t, r, spec)
		const script = addFile + `; :put "some text that is long enough"; :put marker`
		if res := execOn(r.csi, script); res.status != 0 || !check(res.out) {
			t.Errorf("%s: %+v", spec, res)
		}
		if _, ok := r.Device.File("done.txt"); !ok {
			t.Errorf("%s: no effect", spec)
		}
		r.prints(`:put marker`, "marker")
	}
}

func TestFull(t *testing.T) {
	r := start(t, sim.Options{})
	inject(t, r, "full@/disk add:1")
	r.fails(`/disk add type=file slot=a file-path=storage-pool/a.img file-size=1M`, "failure: no space left on disk")
	r.ok(`/disk add type=file slot=a file-path=storage-pool/a.img file-size=1M`)
	inject(t, r, "full")
	r.prints(`:put [/disk get storage-pool free]`, "0")
	r.Device.ClearFaults()
	r.prints(`:put ([/disk get storage-pool free] > 0)`, "true")
}

func TestRebootFault(t *testing.T) {
	r := start(t, quirk("reboot-time", "0s"))
	inject(t, r, "reboot@/file add:1")
	if res := execOn(r.csi, addFile); res.status != -1 {
		t.Errorf("%+v", res)
	}
	within(t, "the device is back", func() bool {
		c, err := r.tryDial("csi", ssh.PublicKeys(r.Signer))
		return err == nil && execOn(c, `:put back`).out == "back\r\n"
	})
	if _, ok := r.Device.File("done.txt"); ok {
		t.Error("the command had an effect")
	}
}

// A driver's script is one line around everything; the fault is meant for what is inside.
func TestFaultsMatchInsideAScript(t *testing.T) {
	for _, script := range []string{
		`:onerror e in={ /disk add type=file; :put ok } do={ :put $e }`,
		`:onerror e in={/disk/add type=file; :put ok } do={ :put $e }`,
		`:put [/disk add type=file]`,
	} {
		for _, spec := range []string{"drop-before@/disk/add", "drop-before@/disk add", "drop-before@disk add"} {
			r := start(t, sim.Options{})
			inject(t, r, spec)
			if res := execOn(r.csi, script); res.status != -1 {
				t.Errorf("%s does not meet %s", spec, script)
			}
			if res := execOn(r.admin, `/disk print`); res.status != 0 {
				t.Errorf("%s meets another command", spec)
			}
		}
	}
}

func TestFaultsFromTheStart(t *testing.T) {
	r := start(t, sim.Options{Faults: []string{"drop-before@never mind", "garbage@:put x:2"}})
	for _, want := range []bool{false, false, true} {
		if res := execOn(r.csi, `:put x`); (res.out == "x\r\n") != want {
			t.Errorf("%+v", res)
		}
	}
}

func TestFaultGrammar(t *testing.T) {
	r := start(t, sim.Options{})
	for spec, want := range map[string]string{
		"": "unknown kind: there are drop-before,", "drop": "unknown kind", "delay": "a delay needs a duration",
		"delay=x": "a delay needs a duration", "delay=-1s": "a delay needs", "garbage=x": "noise or cut",
		"silence=1": "takes no value", "full:0": "at least 1", "reboot=3s@x": "takes no value",
	} {
		if err := r.Device.Inject(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", spec, err, want)
		}
	}
	for _, spec := range []string{"full", "full@x:y", "full@x:y:3", "delay=2s@/disk print:1", "garbage=noise", "reboot:2"} {
		if err := r.Device.Inject(spec); err != nil {
			t.Errorf("%q: %v", spec, err)
		}
	}
	if _, err := sim.New(sim.Options{Dir: t.TempDir(), Faults: []string{"drop"}}); err == nil {
		t.Error("a fault that there is not, from the start")
	}
}

func TestQuirkGrammar(t *testing.T) {
	r := start(t, sim.Options{})
	for name, value := range map[string]string{
		"nonsense": "yes", "shrink": "maybe", "reboot-time": "soon", "max-sessions": "-1", "channel-limit": "many",
	} {
		err := r.Device.SetQuirk(name, value)
		_, err2 := sim.New(sim.Options{Dir: t.TempDir(), Quirks: map[string]string{name: value}})
		if err = errors.Join(err, err2); err == nil {
			t.Errorf("%s=%s was taken", name, value)
		}
	}
	if err := r.Device.SetQuirk("nonsense", "yes"); !strings.Contains(err.Error(), "slot-over-32, duplicate-slot") {
		t.Errorf("%v does not say what there is", err)
	}
	if err := r.Device.SetQuirk("shrink", "maybe"); !strings.Contains(err.Error(), "accept or refuse") {
		t.Errorf("%v does not say what it takes", err)
	}
	for _, q := range sim.Quirks() {
		if err := r.Device.SetQuirk(q.Name, q.Default); err != nil || q.Meaning == "" {
			t.Errorf("the default of %s: %v", q.Name, err)
		}
	}
	var table strings.Builder
	if err := sim.PrintQuirks(&table); err != nil || strings.Count(table.String(), "\n") != len(sim.Quirks()) {
		t.Errorf("%v: %s", err, table.String())
	}
}

func TestCommandTime(t *testing.T) {
	r := start(t, quirk("command-time", "50ms"))
	began := time.Now()
	r.prints(`:put x`, "x")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}
