//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSamplesTakeOneMetricOnly(t *testing.T) {
	const body = `# HELP rds_csi_node_nvme_connections Controllers by state.
# TYPE rds_csi_node_nvme_connections gauge
rds_csi_node_nvme_connections{state="live"} 1
rds_csi_node_nvme_connections{state="connecting"} 0
rds_csi_node_nvme_connections_other 7
rds_csi_up 1
`
	want := []string{`rds_csi_node_nvme_connections{state="live"} 1`, `rds_csi_node_nvme_connections{state="connecting"} 0`}
	got := samples(body, gauge)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{live}, nonZero(got)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"rds_csi_up 1"}, samples(body, "rds_csi_up")); diff != "" {
		t.Error(diff)
	}
}

func TestCountedOne(t *testing.T) {
	const counter = `rds_csi_nvme_connects_total{status="ok"}`
	for line, well := range map[string]bool{counter + " 1": true, counter + " 12": true, counter + " 0": false, counter + " x": false, `rds_csi_nvme_connects_total{status="error"} 1`: false} {
		if err := countedOne([]string{`rds_csi_nvme_connects_total{status="timeout"} 3`, line}, counter); (err == nil) != well {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestUntilEndsWithTheLastReason(t *testing.T) {
	reason := errors.New("not yet")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := until(ctx, func(context.Context) error { return reason })
	if !errors.Is(err, reason) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestLoadKnowsWhatItWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := startLoad(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.goesOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum, err := l.finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blocks, _, _ := l.progress()
	info, err := os.Stat(path)
	if err != nil || info.Size() != int64(blocks)*blockSize || len(sum) != 64 {
		t.Errorf("%d blocks, %+v, sum %s, %v", blocks, info, sum, err)
	}
}

func TestLoadTellsAnIOError(t *testing.T) {
	l, err := startLoad(t.Context(), "/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	<-l.done
	if err := l.goesOn(t.Context()); err == nil {
		t.Error("a full device was no error")
	}
	if _, err := l.finish(t.Context()); err == nil {
		t.Error("a full device was no error at the end")
	}
}

func TestProcessThatEndsIsNoticedWhileWaitingForIt(t *testing.T) {
	p, err := launch(t.TempDir(), "short-lived", "false")
	if err != nil {
		t.Fatal(err)
	}
	err = p.ready(t.Context(), "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "short-lived has ended") {
		t.Errorf("error %v", err)
	}
}

func TestTableAndQuote(t *testing.T) {
	var out bytes.Buffer
	s := newStory(&out)
	s.quote("one\r\ntwo   \r\n")
	s.table([]line{{"create", "done", time.Second}})
	if !strings.HasPrefix(out.String(), "         | one\n         | two\n") || !strings.Contains(out.String(), "create          done") {
		t.Errorf("got %q", out.String())
	}
}
