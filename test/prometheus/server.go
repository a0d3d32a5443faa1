package prometheus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	startLimit = 60 * time.Second       // from the start of the process until it is ready
	endLimit   = 20 * time.Second       // from SIGTERM until it is killed
	pollPause  = 100 * time.Millisecond // between two questions where there is no event to wait for
)

// Config is what a Prometheus of a test does.
type Config struct {
	Dir      string              // for its data, its configuration and its log; it outlives the server
	Interval time.Duration       // of scrapes and of rules; by default a second
	Jobs     map[string][]string // job: targets, as host:port, all of them on this machine
	Rules    []string            // rules files
}

// Server is a running Prometheus on a loopback port of its own.
type Server struct {
	URL string

	client *http.Client
	cmd    *exec.Cmd
	log    *tail
	ended  chan struct{} // closed when the process has ended
	err    error         // how, from then on
}

// Start runs Prometheus until Close is called or ctx ends, and returns when it answers.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	path, err := Program("prometheus")
	if err != nil {
		return nil, err
	}
	file, err := cfg.write()
	if err != nil {
		return nil, err
	}
	s := &Server{
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		log:    &tail{address: make(chan string, 1)}, ended: make(chan struct{}),
	}
	s.cmd = exec.CommandContext(ctx, path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(cfg.Dir, "data"), "--web.listen-address=127.0.0.1:0")
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = endLimit
	output, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go s.wait(output)
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// write makes the configuration file.
func (cfg Config) write() (string, error) {
	interval := cfg.Interval
	if interval == 0 {
		interval = time.Second
	}
	pace := fmt.Sprintf("%dms", interval.Milliseconds())
	type static struct {
		Targets []string `json:"targets"`
	}
	type job struct {
		Name    string   `json:"job_name"`
		Statics []static `json:"static_configs"`
	}
	file := struct {
		Global map[string]string `json:"global"`
		Rules  []string          `json:"rule_files,omitempty"`
		Jobs   []job             `json:"scrape_configs"`
	}{Global: map[string]string{"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace}}
	for _, rules := range cfg.Rules {
		path, err := filepath.Abs(rules)
		if err != nil {
			return "", err
		}
		file.Rules = append(file.Rules, path)
	}
	for name, targets := range cfg.Jobs {
		file.Jobs = append(file.Jobs, job{Name: name, Statics: []static{{Targets: targets}}})
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cfg.Dir, "prometheus.yml")
	return path, os.WriteFile(path, text, 0o600)
}

// wait reads the log until the process ends.
func (s *Server) wait(output io.Reader) {
	s.log.read(output)
	s.err = s.cmd.Wait()
	close(s.ended)
}

// ready waits for the address, which is in the log, and then for an answer.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case address := <-s.log.address:
		s.URL = "http://" + address
	case <-s.ended: // with the reason in its log
		return fmt.Errorf("prometheus ended at once\n%s", s.log)
	case <-ctx.Done():
		return fmt.Errorf("prometheus does not listen: %w\n%s", context.Cause(ctx), s.log)
	}
	for {
		err := s.get(ctx, "/-/ready", nil)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollPause):
		case <-s.ended:
			return fmt.Errorf("prometheus ended\n%s", s.log)
		case <-ctx.Done():
			return fmt.Errorf("prometheus is not ready: %w\n%s", err, s.log)
		}
	}
}

// Close ends the process and waits for it.
func (s *Server) Close() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
		return s.err
	case <-time.After(endLimit):
		err := s.cmd.Process.Kill()
		<-s.ended
		return errors.Join(errors.New("prometheus did not end"), err)
	}
}

// pause waits a little, or not at all when ctx has ended.
func pause(ctx context.Context) error {
	select {
	case <-time.After(pollPause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tail keeps the end of the log, for errors, and finds the address in it.
type tail struct {
	address chan string
	mu      sync.Mutex
	lines   []string
}

func (l *tail) read(output io.Reader) {
	listening := regexp.MustCompile(`msg="Listening on".* address="?([^ "]+)`)
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		if m := listening.FindStringSubmatch(scanner.Text()); m != nil {
			l.address <- m[1] // said once
		}
		l.mu.Lock()
		l.lines = append(l.lines[max(0, len(l.lines)-50):], scanner.Text())
		l.mu.Unlock()
	}
}

// String is the end of the log.
func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
