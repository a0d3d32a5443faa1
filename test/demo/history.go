//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/test/prometheus"
)

// watch starts the real Prometheus. It scrapes both processes until the demo ends, so that not only the moments are seen
// at which the demo itself looks.
func (d *demo) watch(ctx context.Context) error {
	dir := filepath.Join(d.logs, "prometheus")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	d.say("$ prometheus, scraping the controller and the node every two seconds")
	var err error
	d.prometheus, err = prometheus.Start(context.WithoutCancel(ctx), prometheus.Config{
		Dir: dir, Interval: 2 * time.Second, Jobs: map[string][]string{"controller": {controllerHTTP}, "node": {nodeHTTP}},
	})
	if err != nil {
		return err
	}
	_, err = d.prometheus.Await(ctx, "sum(up) == 2", some)
	return err
}

// witnessed waits until Prometheus has seen a state that the kernel is in: a busy machine may be through with it between two
// scrapes, and a scrape that takes longer than from one to the next is none.
func (d *demo) witnessed(ctx context.Context, state string, connections int) error {
	_, err := d.prometheus.Await(ctx, fmt.Sprintf("%s{state=%q} == %d", gauge, state, connections), some)
	return err
}

// some is any answer at all.
func some(answer []prometheus.Sample) bool { return len(answer) > 0 }

// unwatch ends it, and takes the data away: only its configuration is worth keeping.
func (d *demo) unwatch() {
	if d.prometheus == nil {
		return
	}
	if err := errors.Join(d.prometheus.Close(), os.RemoveAll(filepath.Join(d.logs, "prometheus", "data"))); err != nil {
		d.say("prometheus: %v", err)
	}
}

// history is what Prometheus saw of the node's gauge from beginning to end, every single scrape.
func (d *demo) history(ctx context.Context) (string, error) {
	if _, err := d.prometheus.Await(ctx, "sum("+gauge+") == 0", some); err != nil { // the last change may be younger than the last scrape
		return "", err
	}
	scraped, err := d.prometheus.Samples(ctx, gauge, 30*time.Minute)
	if err != nil {
		return "", err
	}
	line, err := timeline(scraped)
	if err != nil {
		return "", err
	}
	d.say("what Prometheus saw of %s: %s", gauge, strings.Join(line, ", "))
	if err := wasTrue(line); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d scrapes, none of them wrong", scrapes(scraped)), nil
}

func scrapes(scraped []prometheus.Sample) int {
	times := map[time.Time]bool{}
	for _, s := range scraped {
		times[s.Time] = true
	}
	return len(times)
}

// timeline gives the states one after the other, "live+live" for two connections; a scrape that shows none is "none". The two
// volumes of the demo never have more.
func timeline(scraped []prometheus.Sample) ([]string, error) {
	var line []string
	for i := 0; i < len(scraped); {
		var held []string
		at := scraped[i].Time
		for ; i < len(scraped) && scraped[i].Time.Equal(at); i++ {
			for range int(scraped[i].Value) {
				held = append(held, scraped[i].Labels["state"])
			}
		}
		if len(held) > 2 {
			return nil, fmt.Errorf("at %s Prometheus saw %s", at.Format(time.TimeOnly), strings.Join(held, ", "))
		}
		slices.Sort(held)
		state := cmp.Or(strings.Join(held, "+"), "none")
		if len(line) == 0 || line[len(line)-1] != state {
			line = append(line, state)
		}
	}
	return line, nil
}

// wasTrue: nothing before the volume was staged and after it was unstaged, and never in between, although the node plugin was
// killed. While the RDS was away, the connection was not live; beside what was restored there were two.
func wasTrue(line []string) error {
	seen := strings.Join(line, " ")
	inside, ok := strings.CutPrefix(seen, "none ")
	inside, too := strings.CutSuffix(inside, " none")
	inside = " " + inside + " "
	rebooted := regexp.MustCompile(` live (.* )?connecting (.* )?live `).MatchString(inside) // with resetting in between, if a scrape falls into that moment
	if !ok || !too || strings.Contains(inside, "none") || !rebooted || !strings.Contains(inside, " live+live ") {
		return fmt.Errorf("prometheus saw %s; the volume was connected once, the RDS rebooted once, and a second volume was there for a while", seen)
	}
	return nil
}
