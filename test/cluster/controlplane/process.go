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
	done chan struct{}
	err  error // why it ended, to be read after done

	mu    sync.Mutex
	cmd   *exec.Cmd
	again func() bool // whether it is to be started again; nil: never, or not any more
}

// Done is closed when the process has ended, and is not started again.
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
	p.end(syscall.SIGKILL)
	<-p.done
}

// end signals a process that is not to be started again.
func (p *Process) end(signals ...os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.again = nil
	for _, s := range signals {
		_ = p.cmd.Process.Signal(s) // it may have ended by itself
	}
}

func (p *Process) signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(s)
}

// Stop asks politely first.
func (p *Process) Stop() {
	p.end(syscall.SIGCONT, syscall.SIGTERM) // a paused one hears nothing else
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.Kill()
	}
}

// Pause stops it in the middle of whatever it does; its connections stay open and silent.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

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
	return l.Keep(nil, name, program, args...)
}

// Keep runs a program, and runs it again when it has ended by itself and again, if there is one, agrees.
func (l *Launcher) Keep(again func() bool, name, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(l.logs, name+".log"), done: make(chan struct{}), again: again}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = commandOf(log, program, args)
	if err := l.start(p); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, errors.Join(err, log.Close()))
	}
	go func() {
		p.err = p.cmd.Wait()
		for l.restarted(p, log, program, args) {
			p.err = p.cmd.Wait()
		}
		if p.err == nil {
			p.err = errors.New("exit status 0")
		}
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

func commandOf(log *os.File, program string, args []string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:noctx // it outlives the call; Stop, Kill and Close end it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // an interrupt at the terminal is for us, we end them in order
	return cmd
}

// restarted is after the end of a process.
func (l *Launcher) restarted(p *Process, log *os.File, program string, args []string) bool {
	l.note(p, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.again == nil || !p.again() {
		return false
	}
	p.cmd = commandOf(log, program, args)
	return l.start(p) == nil
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
