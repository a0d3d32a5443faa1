//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	corev1 "k8s.io/api/core/v1"
)

const adopted = "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11"

// adoptedPV is a PersistentVolume as the existing driver for this device and external-provisioner left it, but for the
// names of the driver and the claim, which are %[1]s and %[2]s.
const adoptedPV = `{
	"apiVersion": "v1", "kind": "PersistentVolume",
	"metadata": {
		"name": "` + adopted + `",
		"annotations": {"pv.kubernetes.io/provisioned-by": "%[1]s", "%[1]s/attached-node": "node-z", "%[1]s/attached-at": "2026-02-01T10:00:00Z"},
		"finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"]
	},
	"spec": {
		"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "64Mi"}, "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem",
		"storageClassName": "%[2]s", "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "%[2]s"},
		"csi": {
			"driver": "%[1]s", "fsType": "ext4", "volumeHandle": "` + adopted + `",
			"volumeAttributes": {
				"rdsAddress": "10.42.241.3", "nvmeAddress": "10.42.68.9", "nvmePort": "4420",
				"nqn": "nqn.2000-02.com.mikrotik:` + adopted + `",
				"volumePath": "/storage-pool/metal-csi/` + adopted + `.img",
				"ctrlLossTmo": "600", "reconnectDelay": "5", "keepAliveTmo": "0", "migrationTimeoutSeconds": "300",
				"storage.kubernetes.io/csiProvisionerIdentity": "1769900000000-4711-%[1]s"
			}
		}
	}
}`

// A volume of the existing driver, with the PersistentVolume that it left, is attached, told about, enlarged and deleted
// by this one, through the sidecars and as it is.
func TestAdoptedVolume(t *testing.T) {
	i := newInstallation(t, func(i *installation, v values) {
		v["config"].(map[string]any)["rds"] = []any{i.startSimulator("old", "--quirk", "slot-over-32=accept")} // such a device has these volumes
	})
	i.console("old", `/file add name="storage-pool/metal-csi" type=directory`)
	i.console("old", fmt.Sprintf(`/disk add type=file file-path=/storage-pool/metal-csi/%[1]s.img file-size=64M slot=%[1]s nvme-tcp-export=yes `+
		`nvme-tcp-server-port=4420 nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:%[1]s`, adopted))
	file := filepath.Join("storage-pool", "metal-csi", adopted+".img")
	if _, err := os.Stat(i.onSimulator("old", file)); err != nil {
		t.Fatal(err)
	}
	i.must(plane.Apply(t.Context(), fmt.Appendf(nil, adoptedPV, i.driver, i.class)))
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	if volume.Name != adopted {
		t.Fatalf("the claim has %s", volume.Name)
	}
	held := i.attach(volume, i.node("node"))
	i.awaitAttached(held)
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeNormal, "VolumeRepaired", "mount-filesystem")

	i.detach(held)
	i.awaitGone(held)
	i.grow(claim, volume.Name)
	i.dropClaim(claim, volume)
	i.poll("its file is gone", i.controller, func(context.Context) error {
		if _, err := os.Stat(i.onSimulator("old", file)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", errStill, err)
		}
		return nil
	})
}

// onSimulator is where a simulated RDS keeps a file.
func (i *installation) onSimulator(rds, file string) string {
	return filepath.Join(i.in(rds), "files", file)
}

// console types a command that answers nothing at an RDS, as its administrator.
func (i *installation) console(rds, command string) {
	i.t.Helper()
	if out := i.ask(rds, command); out != "" { // the console answers 0 and prints what went wrong
		i.t.Fatalf("%s: %s", command, out)
	}
}

// ask types a command at an RDS and answers what it printed.
func (i *installation) ask(rds, command string) string {
	i.t.Helper()
	text, err := os.ReadFile(filepath.Join(i.in(rds), "keys", "admin"))
	i.must(err)
	key, err := ssh.ParsePrivateKey(text)
	i.must(err)
	hosts := filepath.Join(i.in(rds), "known_hosts")
	pinned, err := knownhosts.New(hosts)
	i.must(err)
	text, err = os.ReadFile(hosts)
	i.must(err)
	address := strings.NewReplacer("[", "", "]", "").Replace(strings.Fields(string(text))[0])
	client, err := ssh.Dial("tcp", address, &ssh.ClientConfig{User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: pinned})
	i.must(err)
	defer func() { _ = client.Close() }()
	session, err := client.NewSession()
	i.must(err)
	out, err := session.CombinedOutput(command)
	i.must(err)
	return strings.TrimSpace(string(out))
}
