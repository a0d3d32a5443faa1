package sim_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

func TestBanner(t *testing.T) {
	r := start(t, sim.Options{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "SSH-2.0-ROSSSH\r\n" {
		t.Errorf("the banner is %q, %v", line, err)
	}
}

func TestErrorsExitZeroWithTheTextOnStdout(t *testing.T) {
	r := start(t, sim.Options{})
	for command, want := range map[string]string{
		`/disk remove absent`:  "no such item",
		`nonsense`:             "bad command name nonsense (line 1 column 1)\r\n",
		`:error "as you like"`: "as you like\r\n",
	} {
		res := execOn(r.admin, command)
		if res.status != 0 || res.err != nil || res.stderr != "" || !strings.HasPrefix(res.out, want) {
			t.Errorf("%s: %+v, want %q", command, res, want)
		}
	}
}

func TestExitStatusNonzero(t *testing.T) {
	r := start(t, quirk("exit-status", "nonzero"))
	if res := execOn(r.admin, `/disk remove absent`); res.status != 1 || !strings.HasPrefix(res.out, "no such item") {
		t.Errorf("a failure: %+v", res)
	}
	if res := execOn(r.admin, `:put ok`); res.status != 0 || res.out != "ok\r\n" {
		t.Errorf("a success: %+v", res)
	}
}

func TestErrorLocation(t *testing.T) {
	for value, want := range map[string]string{"yes": "no such item (/disk/remove; line 1)\r\n", "no": "no such item\r\n"} {
		r := start(t, quirk("error-location", value))
		if got := r.run(`/disk remove absent`); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}

func TestNoTerminalAndNoShell(t *testing.T) {
	r := start(t, sim.Options{})
	s, err := r.admin.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("vt100", 80, 25, nil); err == nil {
		t.Error("a terminal was given")
	}
	if err := s.Shell(); err == nil {
		t.Error("a shell was given")
	}
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Error("sftp was given")
	}
	if _, _, err := r.admin.OpenChannel("direct-tcpip", nil); err == nil {
		t.Error("forwarding was given")
	}
}

func TestWideTerminalByLoginName(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("pvc-1", oneExport)
	wide := r.dial("admin+cet512w", ssh.PublicKeys(r.AdminSigner))
	const command = `/disk print detail where slot="pvc-1"`
	narrow := strings.Count(r.run(command), "\r\n")
	if got := strings.Count(execOn(wide, command).out, "\r\n"); got >= narrow || got < 2 {
		t.Errorf("%d lines wide, %d lines at 80 columns", got, narrow)
	}
}

func TestKeyTypes(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaSigner := signer(t, rsaKey)
	r := start(t, sim.Options{})
	if c, err := r.tryDial("csi", ssh.PublicKeys(rsaSigner)); err == nil {
		_ = c.Close()
		t.Error("a key of nobody logged in")
	}
	if _, err := r.tryDial("csi", ssh.PublicKeys(r.AdminSigner)); err == nil {
		t.Error("a key of somebody else logged in")
	}
	withRSA := rig{Server: simtest.Start(t, sim.Options{Users: []sim.User{sim.CSIUser(rsaSigner.PublicKey())}}), tb: t}
	if res := execOn(withRSA.dial("csi", ssh.PublicKeys(rsaSigner)), `:put ok`); res.out != "ok\r\n" {
		t.Errorf("with an RSA key: %+v", res)
	}
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sim.New(sim.Options{Dir: t.TempDir(), HostKey: rsaSigner, Users: []sim.User{
		sim.CSIUser(signer(t, ecdsaKey).PublicKey()),
	}})
	if err == nil || !strings.Contains(err.Error(), "unable to load key file (wrong format or bad passphrase)!") {
		t.Errorf("an ECDSA key: %v", err)
	}
}

func TestDefaultHostKeyIsRSAAndStays(t *testing.T) {
	dir := t.TempDir()
	var first ssh.PublicKey
	for range 2 {
		d, err := sim.New(sim.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if key := d.HostKey(); key.Type() != ssh.KeyAlgoRSA {
			t.Errorf("the host key is %s", key.Type())
		} else if first == nil {
			first = key
		} else if string(first.Marshal()) != string(key.Marshal()) {
			t.Error("another host key after a restart")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPasswordOnlyWithoutAKey(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	open := sim.User{Name: "open", Policies: []string{"ssh", "read"}, Password: "s3cret"}
	keyed := sim.User{Name: "keyed", Policies: []string{"ssh", "read"}, Password: "s3cret", Keys: []ssh.PublicKey{s.HostKey}}
	local := sim.User{Name: "local", Policies: []string{"local", "read"}, Password: "s3cret"}
	r := rig{Server: simtest.Start(t, sim.Options{Users: []sim.User{open, keyed, local}}), tb: t}
	for _, one := range []struct {
		user, password string
		want           bool
	}{
		{"open", "s3cret", true}, {"open", "", false}, {"open", "other", false}, {"nobody", "", false},
		{"keyed", "s3cret", false}, {"local", "s3cret", false},
	} {
		if _, err := r.tryDial(one.user, ssh.Password(one.password)); (err == nil) != one.want {
			t.Errorf("%s with %q: %v", one.user, one.password, err)
		}
	}
}

func TestPolicies(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	reader := sim.User{Name: "csi", Policies: []string{"ssh", "read"}, Keys: []ssh.PublicKey{s.Signer.PublicKey()}}
	r := rig{Server: simtest.Start(t, sim.Options{Users: []sim.User{reader}}), tb: t}
	c := r.dial("csi", ssh.PublicKeys(s.Signer))
	if res := execOn(c, `:put [:len [/disk find]]`); res.out != "10\r\n" {
		t.Errorf("read: %+v", res)
	}
	for _, command := range []string{`/disk add type=file file-path=x file-size=1M`, `/file add name=x`, `/system reboot`} {
		if res := execOn(c, command); !strings.HasPrefix(res.out, "not enough permissions (9)") || res.status != 0 {
			t.Errorf("%s: %+v", command, res)
		}
	}
	full := start(t, sim.Options{})
	if res := execOn(full.csi, `/system reboot`); !strings.HasPrefix(res.out, "not enough permissions (9)") {
		t.Errorf("csi reboots: %+v", res)
	}
	if res := execOn(full.csi, `/file add name=x`); res.out != "" {
		t.Errorf("csi writes: %+v", res)
	}
}

func TestTwentySessions(t *testing.T) {
	r := start(t, sim.Options{})
	for range 18 { // the rig has two already
		r.dial("csi", ssh.PublicKeys(r.Signer))
	}
	if _, err := r.tryDial("csi", ssh.PublicKeys(r.Signer)); err == nil {
		t.Fatal("a session more than max-sessions")
	}
	if err := r.csi.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "room for another session", func() bool {
		_, err := r.tryDial("csi", ssh.PublicKeys(r.Signer))
		return err == nil
	})
}

func TestKeepaliveFailsAndProvesLife(t *testing.T) {
	r := start(t, sim.Options{})
	if ok, _, err := r.csi.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
		t.Errorf("keepalive: %v, %v", ok, err)
	}
}

func TestManyChannelsOfOneConnection(t *testing.T) {
	r := start(t, sim.Options{})
	results := make(chan result)
	for i := range 8 {
		go func() { results <- execOn(r.csi, fmt.Sprintf(`:put "channel %d"`, i)) }()
	}
	for range 8 {
		if res := <-results; res.err != nil || !strings.HasPrefix(res.out, "channel ") {
			t.Errorf("%+v", res)
		}
	}
	if c := r.Device.Counters(); c.Channels != 8 || c.Commands != 8 || c.Connections != 2 {
		t.Errorf("counters: %+v", c)
	}
	if len(r.Device.Commands()) != 8 || !strings.HasPrefix(r.Device.Commands()[0], `:put "channel `) {
		t.Errorf("commands: %q", r.Device.Commands())
	}
}

func TestChannelLimit(t *testing.T) {
	r := start(t, quirk("channel-limit", "2"))
	var open []*ssh.Session
	for range 2 {
		s, err := r.csi.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if s, err := r.csi.NewSession(); err == nil {
		_ = s.Close()
		t.Fatal("a third channel")
	}
	if err := r.Device.SetQuirk("channel-over-limit", "wait"); err != nil {
		t.Fatal(err)
	}
	third := make(chan result)
	go func() { third <- execOn(r.csi, `:put third`) }()
	within(t, "the third channel asks", func() bool { return r.Device.Counters().Channels == 4 })
	select {
	case res := <-third:
		t.Fatalf("it did not wait: %+v", res)
	default:
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	if res := <-third; res.out != "third\r\n" {
		t.Errorf("%+v", res)
	}
}

func TestCommandLimitCutsTheScript(t *testing.T) {
	r := start(t, quirk("command-limit", "20"))
	r.prints(`:put "short enough"`, "short enough")
	if out := r.run(`{ :put "one"; :put "two" }`); !strings.Contains(out, "line 1 column") || strings.Contains(out, "one\r\n") {
		t.Errorf("a script cut in two printed %q", out)
	}
}

func TestSpareIdleTimeout(t *testing.T) {
	r := start(t, quirk("spare-idle-timeout", "20ms"))
	ch, requests, err := r.csi.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	for request := range requests { // ends when the device closes the channel
		t.Errorf("request %s", request.Type)
	}
	if _, err := ch.Read(make([]byte, 1)); err == nil {
		t.Error("the channel is open")
	}
	if err := r.Device.SetQuirk("spare-idle-timeout", "0s"); err != nil {
		t.Fatal(err)
	}
	if res := execOn(r.csi, `:put alive`); res.out != "alive\r\n" {
		t.Errorf("the connection: %+v", res)
	}
}

func TestOutputComesAsItIsProduced(t *testing.T) {
	r := start(t, sim.Options{})
	s, err := r.csi.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(`:put first; :delay 1h; :put last`); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "first\r\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
}

// A script runs to its end although its reader has gone: an abandoned command may still take effect.
func TestAnAbandonedScriptRunsOn(t *testing.T) {
	r := start(t, sim.Options{})
	s, err := r.csi.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(`:delay 200ms; /file add name=late.txt`); err != nil {
		t.Fatal(err)
	}
	if err := r.csi.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "the file of the abandoned script", func() bool {
		_, ok := r.Device.File("late.txt")
		return ok
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	r := start(t, sim.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d, err := sim.New(sim.Options{Dir: t.TempDir(), HostKey: r.Signer, Users: []sim.User{sim.CSIUser(r.Signer.PublicKey())}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- d.Serve(ctx, ln) }()
	other := rig{Server: r.Server, tb: t}
	moved := *r.Server
	moved.Address, moved.HostKey = ln.Addr().String(), r.Signer.PublicKey()
	other.Server = &moved
	c := other.dial("csi", ssh.PublicKeys(r.Signer))
	running := make(chan result)
	go func() { running <- execOn(c, `:put begun; :delay 1h`) }()
	within(t, "the command begins", func() bool { return d.Counters().Commands == 1 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if res := <-running; res.status != -1 {
		t.Errorf("the command: %+v", res)
	}
	if !refused(moved.Address) {
		t.Error("somebody still answers")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func signer(t *testing.T, key any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
