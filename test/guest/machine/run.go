package machine

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

type accelerator struct {
	name        string
	arguments   []string
	bootTimeout time.Duration
}

// With KVM a guest is ready in two seconds; software emulation needs six on an idle machine and was seen to need 80 where two
// processors had sixteen things to do.
var (
	kvm = accelerator{name: "kvm", arguments: []string{"-accel", "kvm"}, bootTimeout: 30 * time.Second}                         //nolint:gochecknoglobals // a constant in all but syntax
	tcg = accelerator{name: "tcg", arguments: []string{"-accel", "tcg,thread=multi,tb-size=512"}, bootTimeout: 5 * time.Minute} //nolint:gochecknoglobals // a constant in all but syntax
)

// run is one QEMU process.
type run struct {
	Config
	accelerator

	started time.Time
	cancel  context.CancelCauseFunc

	mu     sync.Mutex // guards what the readers of the ports find
	booted time.Duration
	last   wire.Event
	status int
}

func newRun(config Config, with accelerator) *run {
	return &run{Config: config, accelerator: with}
}

// do runs the machine until the guest says that it is done, or the context ends.
func (r *run) do(ctx context.Context) (Result, error) {
	sockets, err := os.MkdirTemp("", "guest-") // a short path: Unix sockets have 108 characters
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(sockets) }()
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)

	r.started = time.Now()
	readers := map[string]func(net.Conn) error{
		wire.PortOutput: r.readOutput, wire.PortEvents: r.readEvents, wire.PortFiles: r.readFiles,
	}
	var open sync.WaitGroup
	failures := make(chan error, len(readers))
	for port, read := range readers {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(sockets, port))
		if err != nil {
			return Result{}, err
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() }) // ends an accept that QEMU never answers
		open.Go(func() { failures <- serve(listener, read) })
	}
	qemuErr := r.qemu(ctx, sockets)
	// QEMU is gone: what it had taken from the guest is in the sockets and is read to the end.
	r.cancel(nil) // closes a listener that QEMU never came to
	open.Wait()
	close(failures)
	var readErr error
	for err := range failures {
		readErr = errors.Join(readErr, err)
	}
	result, err := r.result(ctx, qemuErr)
	return result, errors.Join(err, readErr)
}

// errDone is the cause of the end when the guest itself said so.
var errDone = errors.New("done")

func (r *run) result(ctx context.Context, qemuErr error) (Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := Result{Status: r.status, Accelerator: r.name, Boot: r.booted, Total: time.Since(r.started)}
	cause := context.Cause(ctx)
	if errors.Is(cause, errDone) || errors.Is(cause, context.Canceled) {
		cause = qemuErr
	}
	return result, verdict(r.last, r.booted > 0, cause)
}

// serve accepts QEMU's one connection and reads it to its end.
func serve(listener net.Listener, read func(net.Conn) error) error {
	conn, err := listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil // QEMU never came; its own error tells why
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return read(conn)
}

func (r *run) readOutput(conn net.Conn) error {
	_, err := io.Copy(r.Output, conn)
	return err
}

func (r *run) readEvents(conn net.Conn) error {
	err := wire.Receive(conn, r.Nonce, func(e wire.Event) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.last = e
		switch e.Kind {
		case wire.Ready:
			r.booted = time.Since(r.started)
		case wire.Exit:
			r.status = e.Status
		case wire.End, wire.Fault:
			r.cancel(errDone)
			return false
		}
		return true
	})
	if err != nil {
		r.cancel(err)
	}
	return err
}

// readFiles unpacks what the guest hands back. os.Root keeps a name with ".." in it inside the folder.
func (r *run) readFiles(conn net.Conn) error {
	if r.Out == "" {
		_, err := io.Copy(io.Discard, conn)
		return err
	}
	root, err := os.OpenRoot(r.Out)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	in := tar.NewReader(conn)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("files of the guest: %w", err)
		}
		if err := unpack(root, header, in); err != nil {
			return fmt.Errorf("files of the guest: %w", err)
		}
	}
}

func unpack(root *os.Root, header *tar.Header, content io.Reader) error {
	name := filepath.Clean(header.Name)
	if header.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if header.Typeflag != tar.TypeReg {
		return nil // only files and folders are handed over
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// qemu runs the process to its end, watching for a guest that never gets ready and for a KVM that cannot run it.
func (r *run) qemu(ctx context.Context, sockets string) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", r.arguments(sockets)...)
	if r.Link != nil {
		cmd.ExtraFiles = []*os.File{r.Link}
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(r.Logs, "qemu.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// Should this program be killed, the kernel ends QEMU with it; it watches the thread that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	watchdog := time.AfterFunc(r.bootTimeout, r.bootTooSlow)
	defer watchdog.Stop()
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		_, _ = fmt.Fprintln(log, lines.Text())
		if strings.Contains(lines.Text(), "KVM internal error") {
			r.cancel(fmt.Errorf("%w: %s", errNoKVM, lines.Text()))
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("QEMU: %w: %s", err, excerpt(log.Name(), 3))
	}
	return nil
}

func (r *run) bootTooSlow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.booted > 0 {
		return
	}
	err := fmt.Errorf("%w within %s", ErrNotBooted, r.bootTimeout)
	if r.name == kvm.name {
		err = fmt.Errorf("%w: %w", errNoKVM, err)
	}
	r.cancel(err)
}

// linkFD is the link's descriptor in QEMU: the first that is inherited.
const linkFD = 3

// arguments are QEMU's. No network device, unless there is another machine: then the two have one link, which leads nowhere
// else.
func (r *run) arguments(sockets string) []string {
	// An oops ends the run (panic=-1 with -no-reboot) instead of leaving a test to its deadline. The kernel's check of its
	// timer fails when a busy host gives the machine no time just then; under KVM the kernel leaves it out by itself.
	kernel := "console=ttyS0 rdinit=/init panic=-1 oops=panic no_timer_check mitigations=off random.trust_cpu=on"
	if r.Link != nil {
		kernel += " " + wire.PlaceVariable + "=" + r.Place
	}
	args := append([]string{
		"-machine", "q35", "-cpu", "max",
		"-m", fmt.Sprintf("%dM", r.MemoryMB), "-smp", fmt.Sprint(r.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", r.Kernel, "-initrd", r.Initramfs,
		"-append", kernel,
		"-serial", "file:" + filepath.Join(r.Logs, ConsoleLog),
		"-device", "virtio-serial-pci",
	}, r.accelerator.arguments...)
	if r.Link != nil {
		args = append(args, "-netdev", fmt.Sprintf("socket,id=link,fd=%d", linkFD),
			"-device", "virtio-net-pci,netdev=link,romfile=,mac=52:54:00:00:00:0"+r.Place)
	}
	for _, port := range []string{wire.PortOutput, wire.PortEvents, wire.PortFiles} {
		id := strings.ReplaceAll(port, ".", "-")
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,path=%s", id, filepath.Join(sockets, port)),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", id, port))
	}
	return args
}
