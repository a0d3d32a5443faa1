package sim_test

import (
	"os"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim"
)

const oneExport = `nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-1"`

func TestAddMakesFileItemAndExportInOneCommand(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("pvc-1", oneExport)
	got, ok := r.Device.Disk("pvc-1")
	if !ok || !got.Export || !got.Up || got.Port != 4420 || got.NQN != "nqn.2000-02.com.mikrotik:pvc-1" ||
		got.FilePath != "/storage-pool/k8s/pvc-1.img" || got.FileSize != 1<<30 || got.MountFilesystem {
		t.Fatalf("the item is %+v", got)
	}
	info, err := os.Stat(got.HostFile)
	if err != nil || info.Size() != 1<<30 {
		t.Fatalf("the backing file: %v, %v", info, err)
	}
	for prop, want := range map[string]string{
		"file-size": "1073741824", "size": "1073741824", "nvme-tcp-export": "true", "mount-filesystem": "false",
		"file-path": "/storage-pool/k8s/pvc-1.img", "fs": "-", "block-device": "true", "mounted": "false",
		"nvme-tcp-server-allow-host-name": "", "sector-size": "512", "slot-default": "",
	} {
		r.prints(`:put [/disk get pvc-1 `+prop+`]`, want)
	}
}
