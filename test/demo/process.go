//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is one of the three programs, with its output in a log file.
type process struct {
	name    string
	logFile string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has
	err     error         // why, to be read after that
}

// launch starts a program; a second start under the same name goes on in the same log.
func launch(logs, name, program string, args ...string) (*process, error) {
	p := &process{name: name, logFile: filepath.Join(logs, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, args...) //nolint:noctx // it outlives the step that starts it; stopAll ends it
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = log.Close()
		close(p.ended)
	}()
	return p, nil
}

// kill ends it as the kernel's OOM killer would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// terminate asks politely first.
func (p *process) terminate() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.kill()
	}
}

// alive is an error when the process has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended: %w", p.name, p.err)
	default:
		return nil
	}
}

// Addresses of the two metrics servers.
const (
	controllerHTTP = "127.0.0.1:9809"
	nodeHTTP       = "127.0.0.1:9810"
)

// ready waits for /readyz, unless the process dies first.
func (p *process) ready(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return until(ctx, func(ctx context.Context) error {
		if err := p.alive(); err != nil {
			cancel(err)
			return err
		}
		_, err := get(ctx, "http://"+address+"/readyz")
		return err
	})
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", url, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// scrape gives the samples of one metric as Prometheus would read them, without the lines about it.
func scrape(ctx context.Context, address, metric string) ([]string, error) {
	body, err := get(ctx, "http://"+address+"/metrics")
	if err != nil {
		return nil, err
	}
	return samples(body, metric), nil
}

// samples picks the lines of a metric: its name ends at a brace or a space, so that no other name's prefix matches.
func samples(body, metric string) []string {
	var found []string
	for l := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(l, metric); ok && (strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, " ")) {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return found
}
