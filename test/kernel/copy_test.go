//go:build kernel

package kernel

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

// A pool without subvolumes copies for as long as the volume is large, and the controller is a process like any other. It is
// killed when the RDS was told to copy and has answered nothing yet, so nobody knows of the copy but the RDS. The next controller
// goes on with it and begins no second one, and what is restored is what was, whatever was written since.
func TestControllerIsKilledWhileAVolumeIsCopied(t *testing.T) {
	if beController(t) {
		return
	}
	for fstype, quirks := range map[string]map[string]string{
		"ext4": {"file-copy-time": "1s", "file-copy-returns": "started"},
		"xfs":  {"file-copy-time": "1s", "file-copy-size": "at-once", "file-copy-existing": "overwrite"},
	} {
		t.Run(fstype, func(t *testing.T) {
			s := newScene(t, "", copyPool, quirks)
			mode := capability(oneWriter, fstype)
			source := s.create("source", volumeSize, mode, nil)
			source.up()
			before := fill(t, source.directory, 1<<20, "a", "b", "c")
			size := fsBytes(t, source.directory)
			source.down()
			snapshot := source.copiedByTwo()
			s.copied(1, snapshot)

			image := volume{export: &export{t: t, file: s.image(snapshot)}}
			taken := image.sum()
			source.up()
			after := maps.Clone(before)
			maps.Copy(after, fill(t, source.directory, 1<<20, "b", "d"))
			restored := s.create("restored", 2*volumeSize, mode, fromSnapshot(snapshot))
			s.copied(2, snapshot)
			restored.up() // beside its source
			before.verify(t, restored.directory)
			if grown := fsBytes(t, restored.directory); grown < size+volumeSize*9/10 {
				t.Errorf("restored into a volume of %d bytes, the file system has %d", 2*volumeSize, grown)
			}
			maps.Copy(before, fill(t, restored.directory, 1<<20, "c", "e"))
			for c, want := range map[*claim]contents{source: after, restored: before} {
				want.verify(t, c.directory)
				c.down()
				c.remove()
			}
			if image.sum() != taken {
				t.Error("the snapshot has something of what was written to the volume, or to what was restored from it")
			}
			_, err := s.DeleteSnapshot(soon(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()})
			must(t, err)
			s.empty(copyPool)
		})
	}
}

// copiedByTwo has a snapshot taken of the volume, which is detached, by two controllers: the first is killed in the middle of its
// only call, the second asks as external-snapshotter does. This process' own controller keeps still.
func (c *claim) copiedByTwo() *csi.Snapshot {
	c.s.t.Helper()
	t, device := c.s.t, c.s.server.Device
	release := device.HoldCopies()
	defer release()
	request := &csi.CreateSnapshotRequest{Name: "snapshot", SourceVolumeId: c.id()}
	must(t, device.Inject("delay=5s@:execute:1")) // after which it does what it was told, also when nobody waits for it
	first, answer := c.s.launch(), make(chan error, 1)
	go func() {
		_, err := first.CreateSnapshot(soon(t), request)
		answer <- err
	}()
	eventually(t, "the command has arrived", func() bool { return c.s.begun() == 1 })
	first.kill()
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Fatalf("the call was answered before the controller died: %v", err)
	}
	eventually(t, "the rds copies", func() bool { return device.Jobs() > 0 })

	second := c.s.launch()
	defer second.kill()
	ask := func() *csi.Snapshot {
		reply, err := second.CreateSnapshot(soon(t), request)
		must(t, err)
		return reply.GetSnapshot()
	}
	asked := ask()
	for range 3 {
		if now := ask(); now.GetReadyToUse() || now.GetSnapshotId() != asked.GetSnapshotId() || !now.GetCreationTime().AsTime().Equal(asked.GetCreationTime().AsTime()) {
			t.Errorf("while it is copied: %v, after %v", now, asked)
		}
	}
	_, err := second.ControllerPublishVolume(soon(t), &csi.ControllerPublishVolumeRequest{VolumeId: c.id(), NodeId: nodeA, VolumeCapability: c.mode})
	if disk, ok := device.Disk(c.slot()); status.Code(err) != codes.Aborted || !ok || disk.Export {
		t.Errorf("an attach while it is copied: %v; %+v", err, disk)
	}
	if asked = ask(); asked.GetReadyToUse() {
		t.Errorf("ready before it is copied: %v", asked)
	}
	release()
	eventually(t, "the snapshot is ready", func() bool { asked = ask(); return asked.GetReadyToUse() })
	if disk, ok := device.Disk(c.slot()); !ok || !disk.Export || asked.GetSizeBytes() != c.volume.GetCapacityBytes() {
		t.Errorf("after it was copied: %+v; %v", disk, asked)
	}
	return asked
}

// begun counts the copies that the RDS was told to make.
func (s *scene) begun() (n int) {
	for _, script := range s.server.Device.Commands() {
		if strings.Contains(script, ":execute") && strings.Contains(script, "/file copy") {
			n++
		}
	}
	return n
}

// image is where the simulator has the copy that is a snapshot.
func (s *scene) image(snapshot *csi.Snapshot) string {
	name := filepath.Base(snapshot.GetSnapshotId()) + "." + filepath.Base(snapshot.GetSourceVolumeId()) + ".img"
	return filepath.Join(s.server.Dir, "files", copyPool, "k8s", name)
}

// copied: so many copies were made in all, none is under way, and nothing is left of them but the images and what belongs to
// the snapshot: the proof that it is whole, and which job has made it.
func (s *scene) copied(n int, snapshot *csi.Snapshot) {
	s.t.Helper()
	if got := s.begun(); got != n {
		s.t.Errorf("%d copies were begun instead of %d", got, n)
	}
	eventually(s.t, "no job runs", func() bool { return s.server.Device.Jobs() == 0 })
	entries, err := os.ReadDir(filepath.Dir(s.image(snapshot)))
	must(s.t, err)
	var images, others []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".img" {
			images = append(images, e.Name())
		} else {
			others = append(others, e.Name())
		}
	}
	of := strings.TrimSuffix(filepath.Base(s.image(snapshot)), "img")
	if len(images) != 1+n || !slices.Equal(others, []string{of + "done", of + "job"}) {
		s.t.Errorf("after %d copies there are %q and %q", n, images, others)
	}
}

// process is a controller of its own.
type process struct {
	csi.ControllerClient
	t   *testing.T
	cmd *exec.Cmd
}

// controllerVariable tells a process that it is to be one, and whose.
const controllerVariable = "RDS_CSI_TEST_CONTROLLER"

type controllerJob struct{ Socket, Address, Fingerprint, KeyFile string }

// launch starts the calling test once more, as a controller.
func (s *scene) launch() *process {
	s.t.Helper()
	job := controllerJob{
		Socket: filepath.Join(s.t.TempDir(), "csi.sock"), Address: s.server.Address, Fingerprint: s.server.HostKeyFingerprint, KeyFile: s.server.ClientKeyFile,
	}
	text, err := json.Marshal(job)
	must(s.t, err)
	name, _, _ := strings.Cut(s.t.Name(), "/")
	p := &process{t: s.t, cmd: exec.CommandContext(s.t.Context(), "/proc/self/exe", "-test.run=^"+name+"$", "-test.v")}
	p.cmd.Env = append(os.Environ(), controllerVariable+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = s.t.Output(), s.t.Output()
	must(s.t, p.cmd.Start())
	s.t.Cleanup(func() { // after a failure
		_, _ = p.cmd.Process.Kill(), p.cmd.Wait()
	})
	eventually(s.t, "a controller serves", func() bool { _, err := os.Stat(job.Socket); return err == nil })
	conn, err := grpc.NewClient("unix:"+job.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	p.ControllerClient = csi.NewControllerClient(conn)
	return p
}

// kill leaves it no time for anything. The connection is closed at the end of the test only: a call that is under way is to fail
// by its server's death, and not because it was cancelled here.
func (p *process) kill() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Kill())
	if err := p.cmd.Wait(); err == nil || p.cmd.ProcessState.Exited() {
		p.t.Errorf("the controller has ended by itself: %v", p.cmd.ProcessState)
	}
}

// beController serves until somebody kills this process, if it is to be a controller.
func beController(t *testing.T) bool {
	t.Helper()
	text, ok := os.LookupEnv(controllerVariable)
	if !ok {
		return false
	}
	var job controllerJob
	must(t, json.Unmarshal([]byte(text), &job))
	key, err := os.ReadFile(job.KeyFile)
	must(t, err)
	s := &scene{t: t, server: &simtest.Server{Address: job.Address, HostKeyFingerprint: job.Fingerprint}}
	s.server.Signer, err = ssh.ParsePrivateKey(key)
	must(t, err)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	controller := driver.NewController(rdsName, attach.Standalone(), logger)
	controller.Use(driver.Fleet{ClusterID: clusterID, Appliances: map[string]driver.Appliance{rdsName: s.console(copyPool)}})
	listener, err := driver.Listen(t.Context(), "unix://"+job.Socket)
	must(t, err)
	identity := &driver.Identity{Name: "rds.csi.srvlab.io", Version: "test", Ready: func(context.Context) error { return nil }}
	must(t, (&driver.Server{Identity: identity, Controller: controller, Logger: logger}).Serve(t.Context(), listener))
	return true
}
