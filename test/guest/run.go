//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/test/guest/initramfs"
	"github.com/rds-csi/rds-csi/test/guest/kernel"
	"github.com/rds-csi/rds-csi/test/guest/machine"
	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// wantedModules is what the tests and the demo need of a kernel; what is built in is left out. dm-mod brings the
// "error" target and null_blk bad blocks, for devices that cannot be read.
func wantedModules() []string {
	return []string{"configfs", "nvme-tcp", "nvmet", "nvmet-tcp", "nvme-loop", "ext4", "xfs", "btrfs", "loop", "dm-mod", "dm-flakey", "null_blk", "virtio_console", "virtio_net", "virtio_pci"}
}

// neededTools must be on the host; usefulTools are taken when they are.
func neededTools() []string {
	return []string{
		"sh", "mkfs.ext4", "e2fsck", "dumpe2fs", "mkfs.xfs", "xfs_db", "xfs_io", "xfs_repair", "mkfs.btrfs", "blkid", "mount", "umount",
	}
}

func usefulTools() []string {
	return []string{
		"ls", "cat", "uname", "dmesg", "ps", "df", "dd", "stat", "sync", "sleep", "true", "false", "echo", "mkdir", "rm", "env", "sha256sum", "truncate",
		"fsck", "fsck.ext4", "tune2fs", "resize2fs", "fsck.xfs", "xfs_growfs", "losetup", "findmnt", "lsblk", "blockdev", "wipefs", "dmsetup", "mkswap", "mkfs.vfat", "sfdisk",
	}
}

// fetch has the kernel in the cache, so that set-up and not the first run waits for it, and checks its modules.
func fetch(ctx context.Context) (int, error) {
	module, err := moduleRoot(ctx)
	if err != nil {
		return exitGuestFailed, err
	}
	cache, err := cacheFolder(module)
	if err != nil {
		return exitGuestFailed, err
	}
	linux, err := kernel.Find(ctx, filepath.Join(cache, "kernels"), os.Stderr)
	if err != nil {
		return exitGuestFailed, err
	}
	if _, err := linux.Modules(ctx, wantedModules()); err != nil {
		return exitGuestFailed, fmt.Errorf("kernel %s: %w", linux.Release, err)
	}
	return 0, nil
}

// run makes everything ready, boots, and gives the command's exit status.
func (r *request) run(ctx context.Context) (int, error) {
	if runtime.GOARCH != "amd64" {
		return exitGuestFailed, fmt.Errorf("the guest is an x86-64 machine and its programs are this host's, which is %s: not supported", runtime.GOARCH)
	}
	module, err := moduleRoot(ctx)
	if err != nil {
		return exitGuestFailed, err
	}
	work, err := workFolder(module, r.command[0])
	if err != nil {
		return exitGuestFailed, err
	}
	result, err := r.boot(ctx, module, work)
	if err != nil {
		return exitGuestFailed, fmt.Errorf("%w\nlogs: %s", err, work)
	}
	r.note("guest: %s: exit status %d; booted with %s in %.1fs, %.1fs in all\n",
		filepath.Base(r.command[0]), result.Status, result.Accelerator, result.Boot.Seconds(), result.Total.Seconds())
	if result.Status != 0 {
		fmt.Fprintln(os.Stderr, "guest: logs:", work)
		return result.Status, nil
	}
	return 0, os.RemoveAll(work)
}

func (r *request) note(format string, args ...any) {
	if !r.quiet {
		fmt.Fprintf(os.Stderr, format, args...)
	}
}

func (r *request) boot(ctx context.Context, module, work string) (machine.Result, error) {
	var none machine.Result
	cache, err := cacheFolder(module)
	if err != nil {
		return none, err
	}
	linux, err := kernel.Chosen(ctx, filepath.Join(cache, "kernels"), os.Stderr)
	if err != nil {
		return none, err
	}
	nonce := rand.Text()
	image := filepath.Join(work, "initramfs")
	if err := r.buildImage(ctx, module, image, linux, nonce); err != nil {
		return none, fmt.Errorf("initramfs: %w", err)
	}
	if r.out != "" {
		if err := os.MkdirAll(r.out, 0o750); err != nil {
			return none, err
		}
	}
	r.note("guest: Linux %s, %d MiB, %d processors: %s\n", linux.Release, r.memoryMB, r.cpus, strings.Join(r.command, " "))
	defer func() { _ = os.Remove(image) }() // large, and made again from what is there
	config := machine.Config{
		Kernel: linux.Image, Initramfs: image, Nonce: nonce, MemoryMB: r.memoryMB, CPUs: r.cpus,
		Timeout: r.timeout, Logs: work, Out: r.out, Output: os.Stdout, Notes: os.Stderr, Verdicts: cache,
	}
	if r.second {
		return r.pair(ctx, config)
	}
	return r.start(ctx, config)
}

// mostBoots: on a busy host one boot in ten ends in that panic.
const mostBoots = 6

// start boots, and once more when the kernel never came as far as our command. Under software emulation a boot was
// seen to end in a panic of the kernel's own timers, before anything of this project ran. What happens after that is never repeated.
func (r *request) start(ctx context.Context, config machine.Config) (machine.Result, error) {
	for boot := 1; ; boot++ {
		result, err := machine.Run(ctx, config)
		if !errors.Is(err, machine.ErrNotBooted) || ctx.Err() != nil || boot == mostBoots {
			return result, err
		}
		fmt.Fprintf(os.Stderr, "guest: %v\nguest: booting once more\n", err)
	}
}

func (r *request) buildImage(ctx context.Context, module, path string, linux *kernel.Kernel, nonce string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.writeImage(ctx, module, f, linux, nonce), f.Close())
}

func (r *request) writeImage(ctx context.Context, module string, w io.Writer, linux *kernel.Kernel, nonce string) error {
	image, err := initramfs.New(w)
	if err != nil {
		return err
	}
	if err := addInit(ctx, module, image); err != nil {
		return err
	}
	job := wire.Job{Nonce: nonce, Hostname: "guest", Command: r.command, Env: r.env}
	modules, err := linux.Modules(ctx, wantedModules())
	if err != nil {
		return err
	}
	for _, m := range modules {
		file := wire.Module{Path: "/usr/lib/modules/" + m.Name + ".ko"}
		if m.Name == "null-blk" {
			file.Parameters = "nr_devices=0" // devices are made through configfs when a test wants one
		}
		job.Modules = append(job.Modules, file)
		if err := image.Write(file.Path, 0o644, m.ELF); err != nil {
			return err
		}
	}
	description, err := json.Marshal(job)
	if err != nil {
		return err
	}
	if err := image.Write(wire.JobFile, 0o644, description); err != nil {
		return err
	}
	if err := r.addFiles(ctx, image); err != nil {
		return err
	}
	return image.Close()
}

// addFiles puts the caller's files first: they win over the host's of the same path.
func (r *request) addFiles(ctx context.Context, image *initramfs.Image) error {
	for _, pair := range r.files {
		source, target, ok := strings.Cut(pair, ":")
		if !ok {
			return fmt.Errorf("--file %s: give host:guest", pair)
		}
		if err := image.Copy(source, target); err != nil {
			return err
		}
	}
	for _, tool := range append(neededTools(), r.tools...) {
		if err := image.Tool(ctx, tool); err != nil {
			return fmt.Errorf("%w (scripts/setup.sh installs what is needed)", err)
		}
	}
	for _, tool := range usefulTools() {
		if err := image.Tool(ctx, tool); err != nil && !errors.Is(err, initramfs.ErrNoTool) {
			return err
		}
	}
	return errors.Join(
		image.Write("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n")),
		image.Write("/etc/group", 0o644, []byte("root:x:0:\n")),
		image.Write("/etc/hosts", 0o644, []byte("127.0.0.1 localhost guest\n")),
	)
}

// addInit builds PID 1 without cgo, so that it needs no library in the guest.
func addInit(ctx context.Context, module string, image *initramfs.Image) error {
	dir, err := os.MkdirTemp("", "guest-init-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "init")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", binary, "./test/guest/init")
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build PID 1: %w: %s", err, out)
	}
	return image.Copy(binary, "/init")
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", errors.New("run this inside the checkout of rds-csi")
	}
	return filepath.Dir(file), nil
}

// cacheFolder outlives checkouts where the user has a cache folder; kernels are some 100 MB each.
func cacheFolder(module string) (string, error) {
	dir := filepath.Join(module, ".cache")
	if user, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(user, "rds-csi")
	}
	return dir, os.MkdirAll(dir, 0o750)
}

// workFolder is this run's own, in the checkout, where a person looks for logs; it goes when the run was good.
func workFolder(module, command string) (string, error) {
	parent := filepath.Join(module, ".cache", "guest")
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, time.Now().Format("0102-150405-")+filepath.Base(command)+"-")
}
