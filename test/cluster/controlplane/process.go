package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process gets between TERM and KILL. kube-apiserver waits longer than this for its watches.
const stopGrace = 5 * time.Second

// Process is one program, with its output in a log file.
type Process struct {
	Name string
	Log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended, to be read after done
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is why it ended; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%w), see %s", p.Name, p.err, p.Log)
	default:
		return nil
	}
}

// Kill ends it as the kernel's out-of-memory killer would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// Stop asks politely first.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused one hears nothing else
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.Kill()
	}
}

// Pause stops it in the middle of whatever it does; its connections stay open and silent.
func (p *Process) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Launcher starts processes that cannot outlive this one, however it ends.
//
// The kernel sends a child its parent-death signal when the thread that started it ends, not the process. The Go
// runtime may end threads; so all children are started by one goroutine that keeps its thread.
type Launcher struct {
	logs    string
	starts  chan func()
	closing chan struct{} // closed: nothing is started any more
	over    chan struct{} // closed: everything has ended, and the thread may
	ended   chan struct{}
	close   func()

	mu      sync.Mutex
	running map[*Process]bool
}

// NewLauncher has the logs written into a folder.
func NewLauncher(logs string) *Launcher {
	l := &Launcher{
		logs: logs, starts: make(chan func()), closing: make(chan struct{}), over: make(chan struct{}), ended: make(chan struct{}),
		running: map[*Process]bool{},
	}
	l.close = sync.OnceFunc(l.endAll)
	go l.run()
	return l
}

func (l *Launcher) run() {
	defer close(l.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case start := <-l.starts:
			start()
		case <-l.over:
			return
		}
	}
}

// errClosed is a start after the end.
var errClosed = errors.New("the control plane was closed")

// start has a process started by the goroutine that keeps its thread.
func (l *Launcher) start(p *Process) error {
	started := make(chan error, 1)
	select {
	case l.starts <- func() { started <- l.startHere(p) }:
		return <-started
	case <-l.closing:
		return errClosed
	}
}

func (l *Launcher) startHere(p *Process) error {
	select {
	case <-l.closing:
		return errClosed
	default:
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	l.note(p, true)
	return nil
}

// Start runs a program. A second start under the same name goes on in the same log.
func (l *Launcher) Start(name, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(l.logs, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, args...) //nolint:noctx // it outlives the call; Stop, Kill and Close end it
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // an interrupt at the terminal is for us, we end them in order
	if err := l.start(p); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, errors.Join(err, log.Close()))
	}
	go func() {
		p.err = p.cmd.Wait()
		if p.err == nil {
			p.err = errors.New("exit status 0")
		}
		_ = log.Close()
		l.note(p, false)
		close(p.done)
	}()
	return p, nil
}

func (l *Launcher) note(p *Process, running bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if running {
		l.running[p] = true
	} else {
		delete(l.running, p)
	}
}

// Close ends what still runs, all at once; nothing can be started any more.
func (l *Launcher) Close() { l.close() }

func (l *Launcher) endAll() {
	close(l.closing)
	idle := make(chan struct{})
	l.starts <- func() { close(idle) } // a start under way has been noted then
	<-idle
	l.mu.Lock()
	left := slices.Collect(maps.Keys(l.running))
	l.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range left {
		all.Go(p.Stop)
	}
	all.Wait()
	close(l.over)
	<-l.ended
}

// until asks again and again, every tenth of a second, until it is answered, the process is gone, or ctx ends.
func until(ctx context.Context, p *Process, ask func(context.Context) error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return p.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w): %w, see %s", p.Name, context.Cause(ctx), err, p.Log)
		}
	}
}
