//go:build cluster

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A claim becomes a volume on the RDS through external-provisioner, and is gone from there when it is deleted.
func TestClaim(t *testing.T) {
	i := newInstallation(t)
	claim := i.makeClaim(i.class).Name
	pv := i.bound(claim)
	csi := pv.Spec.CSI
	if csi == nil || csi.Driver != i.driver {
		t.Fatalf("the PersistentVolume's source: %+v", pv.Spec.PersistentVolumeSource)
	}
	if got := pv.Spec.Capacity.Storage().Value(); got != 64<<20 {
		t.Errorf("capacity %d", got)
	}
	if csi.FSType != "ext4" || pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("file system %q, reclaim policy %s", csi.FSType, pv.Spec.PersistentVolumeReclaimPolicy)
	}
	if len(pv.Spec.AccessModes) != 1 || pv.Spec.AccessModes[0] != corev1.ReadWriteOnce {
		t.Errorf("access modes %v", pv.Spec.AccessModes)
	}
	for _, key := range []string{"nqn", "nvmeAddress", "nvmePort"} {
		if csi.VolumeAttributes[key] == "" {
			t.Errorf("volume attribute %s is missing: %v", key, csi.VolumeAttributes)
		}
	}
	files := i.files(t)
	if len(files) != 1 {
		t.Errorf("files on the RDS: %v", files)
	}

	i.must(plane.Admin.CoreV1().PersistentVolumeClaims(space).Delete(t.Context(), claim, metav1.DeleteOptions{}))
	seen.until(t, "the PersistentVolume is gone", func() error {
		if v, err := seen.volumes.Get(pv.Name); err == nil {
			return fmt.Errorf("%w: %s is %s: %s", errStill, pv.Name, v.Status.Phase, v.Status.Message)
		}
		return nil
	})
	i.poll("the volume is gone from the RDS", i.controller, func(context.Context) error {
		if left := i.files(t); len(left) > 0 {
			return fmt.Errorf("%w: %v", errStill, left)
		}
		return nil
	})
}

// files are the volumes' files on the simulated RDS.
func (i *installation) files(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(i.in("rds"), "*", "*", "k8s", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, strings.TrimPrefix(f, i.in("rds")))
	}
	return names
}
