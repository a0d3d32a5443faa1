//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/test/guest/machine"
	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// What the process that plays QEMU reads from its environment.
const (
	secondVariable = "GUEST_TEST_SECOND" // what the second machine does once it is up
	bootsVariable  = "GUEST_TEST_BOOTS"  // a file that gets the process of each of its boots
	untilVariable  = "GUEST_TEST_UNTIL"  // when so many of these have ended the first one's command does
)

func TestMain(m *testing.M) {
	if second := os.Getenv(secondVariable); second != "" {
		if err := playQEMU(second, strings.Join(os.Args, " ")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// playQEMU is a machine as far as the host can tell.
func playQEMU(second, arguments string) error {
	port := regexp.MustCompile(`path=(\S*` + wire.PortEvents + `)`).FindStringSubmatch(arguments)
	if port == nil {
		return errors.New("no port for events")
	}
	events, err := net.Dial("unix", port[1])
	if err != nil {
		return err
	}
	tell := func(kinds ...wire.Kind) {
		for _, kind := range kinds {
			status := 0
			if kind == wire.Exit && second == "fails" {
				status = 3
			}
			_ = wire.Send(events, wire.Event{Nonce: "n", Kind: kind, Status: status})
		}
	}
	tell(wire.Ready)
	if strings.Contains(arguments, wire.PlaceVariable+"="+wire.First) {
		second = "is the first"
		until, err := strconv.Atoi(os.Getenv(untilVariable))
		if err != nil {
			return err
		}
		for ended() < until {
			<-time.After(5 * time.Millisecond)
		}
		tell(wire.Exit, wire.End)
	} else if err := noteBoot(); err != nil {
		return err
	}
	switch second {
	case "dies":
		return nil
	case "fails", "is switched off":
		tell(wire.Exit, wire.End)
	}
	<-time.After(time.Minute) // it is killed long before
	return errors.New("not killed")
}

func noteBoot() error {
	f, err := os.OpenFile(os.Getenv(bootsVariable), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return errors.Join(err, f.Close())
}

// ended counts the boots of the second machine that are over, as the harness has seen; -1 before the first.
func ended() int {
	text, err := os.ReadFile(os.Getenv(bootsVariable))
	if err != nil {
		return -1
	}
	n := 0
	for _, pid := range strings.Fields(string(text)) {
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			n++
		}
	}
	return n
}

func TestSecondMachine(t *testing.T) {
	for _, c := range []struct {
		does  string
		until int // boots of it that are over
		want  error
	}{
		{"stays", 0, nil},
		{"is switched off", 2, nil},
		{"dies", 1, machine.ErrDied},
		{"fails", 1, machine.ErrDied},
	} {
		t.Run(c.does, func(t *testing.T) {
			dir := t.TempDir()
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(program, filepath.Join(dir, "qemu-system-x86_64")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("GUEST_ACCEL", "tcg")
			t.Setenv(secondVariable, c.does)
			t.Setenv(bootsVariable, filepath.Join(dir, "boots"))
			t.Setenv(untilVariable, fmt.Sprint(c.until))
			result, err := (&request{}).pair(t.Context(), machine.Config{
				Nonce: "n", MemoryMB: 64, CPUs: 1, Timeout: 30 * time.Second, Logs: t.TempDir(), Output: io.Discard, Notes: io.Discard,
			})
			if result.Status != 0 || !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("status %d, %v instead of %v", result.Status, err, c.want)
			}
		})
	}
}
