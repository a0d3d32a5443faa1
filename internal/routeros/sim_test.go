package routeros_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

// connect makes a client of a simulated RDS, as a driver does: key file, known_hosts.
func connect(t testing.TB, s *simtest.Server, change func(*routeros.Config)) *routeros.Client {
	t.Helper()
	signer, err := routeros.ParseKeyFile(s.ClientKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := routeros.KnownHosts(s.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg := routeros.Config{Name: "rds1", Address: s.Address, User: "csi", Signers: []ssh.Signer{signer}, HostKey: pin}
	if change != nil {
		change(&cfg)
	}
	c, err := routeros.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.Start(context.Background())
	return c
}

func built(t testing.TB, b *routeros.Builder) routeros.Script {
	t.Helper()
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, slot string, size int64) routeros.Script {
	return built(t, routeros.NewScript("disk_add").Add(
		`/disk add type=file slot=? file-path=? file-size=? mount-filesystem=no nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn=?`,
		routeros.Text(slot), routeros.Text("/storage-pool/"+slot+".img"), routeros.Number(size), routeros.Text("nqn.2000-02.com.mikrotik:"+slot)))
}

func get(t testing.TB, slot string) routeros.Script {
	return built(t, routeros.NewScript("disk_get").Add(
		`:put [:serialize to=json options=json.no-string-conversion [/disk print detail as-value where slot=?]]`, routeros.Text(slot)))
}

type diskRow struct {
	Slot     routeros.Property `json:"slot"`
	FileSize routeros.Property `json:"file-size"`
	Export   routeros.Property `json:"nvme-tcp-export"`
	Mount    routeros.Property `json:"mount-filesystem"`
	NQN      routeros.Property `json:"nvme-tcp-server-nqn"`
}

// String is the row with its types, and whether each of them was readable.
func (d diskRow) String() string {
	size, _ := d.FileSize.Int()
	export, known := d.Export.Bool()
	mount, said := d.Mount.Bool()
	return fmt.Sprintf("%s of %d, export %t (%t), mount %t (%t), %s", d.Slot.Text(), size, export, known, mount, said, d.NQN.Text())
}

func mustRun(t testing.TB, c *routeros.Client, s routeros.Script) routeros.Reply {
	t.Helper()
	reply, err := c.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func mustGet(t testing.TB, c *routeros.Client, slot string) []diskRow {
	t.Helper()
	var rows []diskRow
	if err := mustRun(t, c, get(t, slot)).JSON(0, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestDiskOnTheSimulatedRDS(t *testing.T) {
	for _, version := range []string{"7.21.5", "7.23.8", "7.24.4", "7.25.1"} {
		t.Run(version, func(t *testing.T) {
			s := simtest.Start(t, sim.Options{Version: version})
			c := connect(t, s, nil)
			if rows := mustGet(t, c, "vol-1"); len(rows) != 0 {
				t.Errorf("rows before: %v", rows)
			}
			if reply := mustRun(t, c, add(t, "vol-1", 1<<30)); len(reply.Lines) != 0 {
				t.Errorf("the add printed %q", reply.Lines)
			}
			const want = "vol-1 of 1073741824, export true (true), mount false (true), nqn.2000-02.com.mikrotik:vol-1"
			if rows := mustGet(t, c, "vol-1"); len(rows) != 1 || rows[0].String() != want {
				t.Errorf("rows = %s, want %s", rows, want)
			}
			mustRun(t, c, built(t, routeros.NewScript("disk_remove").Add(`/disk remove [find slot=?]`, routeros.Text("vol-1"))))
			if rows := mustGet(t, c, "vol-1"); len(rows) != 0 {
				t.Errorf("rows after: %v", rows)
			}
			if s := c.Status(); !s.Connected || !strings.HasPrefix(s.Version, version) || s.Dialect == routeros.DialectUnknown {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestErrorsOfTheSimulatedRDS(t *testing.T) {
	script := func(b *routeros.Builder) func(testing.TB) routeros.Script {
		return func(t testing.TB) routeros.Script { return built(t, b) }
	}
	tests := map[string]struct {
		script func(testing.TB) routeros.Script
		want   error
	}{
		"duplicate":          {func(t testing.TB) routeros.Script { return add(t, "there", 1<<20) }, routeros.ErrExists},
		"larger than free":   {func(t testing.TB) routeros.Script { return add(t, "large", 1<<50) }, routeros.ErrNoSpace},
		"no such item":       {script(routeros.NewScript("x").Add(`/disk set nosuch comment="a"`)), routeros.ErrNotFound},
		"another's business": {script(routeros.NewScript("x").Add(`/system reboot`)), routeros.ErrPermission},
		"no such parameter":  {script(routeros.NewScript("x").Add(`/disk add type=file nonsense=1`)), routeros.ErrSyntax},
		"no such command":    {script(routeros.NewScript("x").Add(`/disk frobnicate`)), routeros.ErrSyntax},
		"unbalanced":         {script(routeros.NewScript("x").Add(`:if (true) do={`)), routeros.ErrSyntax},
		"its own error":      {script(routeros.NewScript("x").Add(`:error "this is not ours"`)), nil},
	}
	for _, exit := range []string{"zero", "nonzero"} {
		for _, location := range []string{"yes", "no"} {
			s := simtest.Start(t, sim.Options{Quirks: map[string]string{"exit-status": exit, "error-location": location}})
			var mu sync.Mutex
			observed := map[string]int{}
			c := connect(t, s, func(c *routeros.Config) {
				c.Observe = func(_, status string, _ time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					observed[status]++
				}
			})
			mustRun(t, c, add(t, "there", 1<<20))
			for name, tt := range tests {
				t.Run(fmt.Sprintf("%s/exit %s/location %s", name, exit, location), func(t *testing.T) {
					_, err := c.Run(t.Context(), tt.script(t))
					var ce *routeros.CommandError
					if !errors.As(err, &ce) || ce.Text == "" || !errors.Is(ce.Err, tt.want) || tt.want == nil && ce.Err != nil {
						t.Errorf("err = %v", err)
					}
				})
			}
			want := map[string]int{"ok": 1, "exists": 1, "no_space": 1, "not_found": 1, "permission": 1, "syntax": 3, "error": 1}
			if fmt.Sprint(observed) != fmt.Sprint(want) {
				t.Errorf("observed %v, want %v", observed, want)
			}
		}
	}
}

// Every way of losing a reply, with the question whether the volume is there afterwards.
func TestFaults(t *testing.T) {
	tests := map[string]struct {
		want  error
		there bool
	}{
		"drop-before@/disk/add:1":  {routeros.ErrOutcomeUnknown, false},
		"drop-after@/disk/add:1":   {routeros.ErrOutcomeUnknown, true},
		"garbage@/disk/add:1":      {routeros.ErrOutcomeUnknown, true},
		"garbage=cut@/disk/add:1":  {routeros.ErrOutcomeUnknown, true},
		"silence@/disk/add:1":      {routeros.ErrOutcomeUnknown, false},
		"silence:1":                {routeros.ErrOutcomeUnknown, false},
		"delay=1500ms@/disk/add:1": {routeros.ErrOutcomeUnknown, true},
		"delay=50ms@/disk/add:1":   {nil, true},
		"reboot@/disk/add:1":       {routeros.ErrOutcomeUnknown, false},
		"full@/disk/add:1":         {routeros.ErrNoSpace, false},
		"drop-before@/disk/remove": {nil, true},
	}
	for fault, tt := range tests {
		t.Run(fault, func(t *testing.T) {
			s := simtest.Start(t, sim.Options{Quirks: map[string]string{"reboot-time": "50ms"}})
			c := connect(t, s, func(c *routeros.Config) { c.KeepAlive = 3 * time.Second })
			mustGet(t, c, "vol-1")
			spares(t, s, 4)
			inject(t, s, fault)
			patience := time.Second
			if !errors.Is(tt.want, routeros.ErrOutcomeUnknown) {
				patience = time.Minute
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := c.Run(ctx, add(t, "vol-1", 1<<20))
			cancel()
			if !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if rows := eventually(t, c, "vol-1", tt.there); (len(rows) == 1) != tt.there {
				t.Errorf("afterwards: %+v", rows)
			}
		})
	}
}

// spares waits until the RDS has opened so many channels that no command has used: with them the next command leaves at once, and
// what happens to it is the fault's doing and not a missing channel's.
func spares(t testing.TB, s *simtest.Server, n int) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < 20*time.Second; runtime.Gosched() {
		if c := s.Device.Counters(); c.Channels-c.Commands >= n {
			return
		}
	}
	t.Fatalf("no %d spare channels: %+v", n, s.Device.Counters())
}

func inject(t testing.TB, s *simtest.Server, fault string) {
	t.Helper()
	if err := s.Device.Inject(fault); err != nil {
		t.Fatal(err)
	}
}

// eventually looks until the RDS answers and says what is wanted: a reboot may still be to come, an abandoned command too.
func eventually(t testing.TB, c *routeros.Client, slot string, there bool) []diskRow {
	t.Helper()
	var rows []diskRow
	for begun := time.Now(); time.Since(begun) < 20*time.Second; {
		reply, err := c.Run(t.Context(), get(t, slot))
		if err == nil {
			if err := reply.JSON(0, &rows); err != nil {
				t.Fatal(err)
			}
			if (len(rows) == 1) == there {
				return rows
			}
		}
	}
	return rows
}

// B13 on real TCP: connections that are accepted and never answered.
func TestSilentRDS_B13(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	c := connect(t, s, func(c *routeros.Config) { c.KeepAlive, c.DialTimeout = 300*time.Millisecond, 3*time.Second })
	mustGet(t, c, "vol-1")
	inject(t, s, "silence")
	for i := range 4 {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := c.Run(ctx, get(t, "vol-1"))
		cancel()
		if err == nil || time.Since(begun) > 5*time.Second { // a loaded machine wakes late
			t.Errorf("call %d came to %v after %v", i, err, time.Since(begun))
		}
	}
	s.Device.ClearFaults()
	mustGet(t, c, "vol-1")
}

func TestRebootOfTheRDS_B14(t *testing.T) {
	s := simtest.Start(t, sim.Options{Quirks: map[string]string{"reboot-time": "100ms"}})
	c := connect(t, s, nil)
	mustRun(t, c, add(t, "vol-1", 1<<20))
	for range 3 {
		if err := s.Device.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rows := mustGet(t, c, "vol-1"); len(rows) != 1 {
			t.Errorf("rows %v", rows)
		}
	}
	if n := s.Device.Counters().Connections; n > 8 {
		t.Errorf("%d connections for 3 reboots", n)
	}
}

func TestQuirksOfChannels(t *testing.T) {
	tests := []map[string]string{
		{},
		{"channel-limit": "1"},
		{"channel-limit": "2"},
		{"channel-limit": "2", "channel-over-limit": "wait"},
		{"channel-limit": "1", "channel-over-limit": "wait"},
		{"spare-idle-timeout": "200ms"},
	}
	for _, quirks := range tests {
		for _, serial := range []bool{false, true} {
			t.Run(fmt.Sprint(quirks, serial), func(t *testing.T) {
				s := simtest.Start(t, sim.Options{Quirks: quirks})
				c := connect(t, s, func(c *routeros.Config) { c.SerializeOpen = serial })
				var wg sync.WaitGroup
				for range 16 {
					wg.Go(func() {
						for range 5 {
							if _, err := c.Run(t.Context(), get(t, "vol-1")); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if idle, ok := quirks["spare-idle-timeout"]; ok { // the spare channels are closed; the next command needs one
					d, err := time.ParseDuration(idle)
					if err != nil {
						t.Fatal(err)
					}
					<-time.After(2 * d)
				}
				mustGet(t, c, "vol-1")
				if n := s.Device.Counters(); n.Connections != 1 || n.Commands != 82 {
					t.Errorf("%+v, want one connection and 82 commands", n)
				}
			})
		}
	}
}

// A warm client needs one channel for each command, none to see whether the RDS is there, and one connection for all.
func TestChannelsPerCommand_B30(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	c := connect(t, s, nil)
	mustGet(t, c, "vol-1")
	before := s.Device.Counters()
	for range 100 {
		mustGet(t, c, "vol-1")
	}
	after := s.Device.Counters()
	if n := after.Commands - before.Commands; n != 100 {
		t.Errorf("%d commands for 100", n)
	}
	if n := after.Channels - before.Channels; n > 100+4 || after.Connections != 1 {
		t.Errorf("%d channels and %d connections for 100 commands", n, after.Connections)
	}
}

// A command that the RDS cuts is a syntax error, and nothing of it runs.
func TestQuirkCommandLimit(t *testing.T) {
	s := simtest.Start(t, sim.Options{Quirks: map[string]string{"command-limit": "256"}})
	c := connect(t, s, nil)
	_, err := c.Run(t.Context(), add(t, "vol-1", 1<<20))
	if !errors.Is(err, routeros.ErrSyntax) {
		t.Errorf("err = %v", err)
	}
	if disks := s.Device.Disks(); len(disks) != 0 {
		t.Errorf("disks %v", disks)
	}
}

func TestLogin(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	secret := simtest.Start(t, sim.Options{Users: []sim.User{{Name: "csi", Policies: []string{"ssh", "read", "write"}, Password: "correct horse"}}})
	noRead := simtest.Start(t, sim.Options{Users: []sim.User{{Name: "csi", Policies: []string{"ssh"}, Password: "correct horse"}}})
	old := simtest.Start(t, sim.Options{Version: "7.20.8"})
	password := func(p string) func(*routeros.Config) {
		return func(c *routeros.Config) { c.Signers, c.Password = nil, p }
	}
	tests := map[string]struct {
		server *simtest.Server
		change func(*routeros.Config)
		want   error
		text   string
	}{
		"key":            {server: s},
		"fingerprint":    {server: s, change: func(c *routeros.Config) { c.HostKey = fingerprint(t, s.HostKeyFingerprint) }},
		"password":       {server: secret, change: password("correct horse")},
		"wrong password": {secret, password("wrong"), routeros.ErrUnreachable, "unable to authenticate"},
		"wrong user":     {s, func(c *routeros.Config) { c.User = "nobody" }, routeros.ErrUnreachable, "user nobody"},
		"wrong key":      {s, func(c *routeros.Config) { c.Signers = []ssh.Signer{s.AdminSigner} }, routeros.ErrUnreachable, "unable to authenticate"},
		"another host":   {s, func(c *routeros.Config) { c.HostKey = fingerprint(t, secret.HostKeyFingerprint) }, routeros.ErrUnreachable, s.HostKeyFingerprint},
		"no policies":    {noRead, password("correct horse"), routeros.ErrUnreachable, "policies"},
		"too old":        {server: old, want: routeros.ErrUnsupportedVersion, text: "7.20.8"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := connect(t, tt.server, tt.change)
			_, err := c.Run(t.Context(), get(t, "vol-1"))
			if !errors.Is(err, tt.want) || tt.text != "" && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("err = %v", err)
			}
			for _, other := range []error{routeros.ErrOutcomeUnknown, routeros.ErrPermission} {
				if errors.Is(err, other) {
					t.Errorf("%v also claims to be %v", err, other)
				}
			}
			if err != nil && strings.Contains(err.Error(), "correct horse") {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

func fingerprint(t *testing.T, s string) routeros.HostKey {
	t.Helper()
	pin, err := routeros.Fingerprint(s)
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

// The RDS comes with an RSA key of 2048 bits.
func TestRSAHostKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rsa")
	if err := os.WriteFile(file, rsaKey(t), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := routeros.ParseKeyFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := simtest.Start(t, sim.Options{HostKey: signer, Users: []sim.User{sim.CSIUser(signer.PublicKey())}})
	c := connect(t, s, func(c *routeros.Config) { c.Signers = []ssh.Signer{signer} }) // and an RSA user key
	mustGet(t, c, "vol-1")
}

// 64 callers while connections die before, after and during commands: no race, no lost call, few connections.
func TestManyCallersOfAFailingRDS_B31(t *testing.T) {
	s := simtest.Start(t, sim.Options{})
	c := connect(t, s, nil)
	mustGet(t, c, "vol-0")
	for _, fault := range []string{"drop-before@/disk/add:3", "drop-after@/disk/add:3", "garbage@/disk/add:3"} {
		inject(t, s, fault)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			slot := fmt.Sprintf("vol-%d", i)
			for {
				_, err := c.Run(t.Context(), add(t, slot, 1<<20))
				if err == nil || errors.Is(err, routeros.ErrExists) {
					return
				}
				if !errors.Is(err, routeros.ErrOutcomeUnknown) && !errors.Is(err, routeros.ErrUnreachable) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Device.Disks()); n != 64 {
		t.Errorf("%d disks", n)
	}
	if n := s.Device.Counters().Connections; n > 1+6+2 {
		t.Errorf("%d connections for 6 drops", n)
	}
}

func BenchmarkRun(b *testing.B) {
	s := simtest.Start(b, sim.Options{})
	c := connect(b, s, nil)
	script := built(b, routeros.NewScript("ping").Add(`:put 1`))
	mustRun(b, c, script)
	b.Run("sequential", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustRun(b, c, script)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := c.Run(b.Context(), script); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		add(b, "pvc-abcdefghijklmnopqrstuvwxyz", 1<<30)
	}
}
