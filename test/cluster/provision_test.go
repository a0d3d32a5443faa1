//go:build cluster

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

	i.dropClaim(claim, pv)
	i.poll("the volume is gone from the RDS", i.controller, func(context.Context) error {
		if left := i.files(t); len(left) > 0 {
			return fmt.Errorf("%w: %v", errStill, left)
		}
		return nil
	})
}

// A claim that is made larger gets a larger volume through external-resizer.
func TestExpansion(t *testing.T) {
	i := newInstallation(t)
	claim := i.makeClaim(i.class).Name
	pv := i.bound(claim)
	i.grow(claim, pv.Name)
}

// grow doubles a claim and waits until its volume has followed.
func (i *installation) grow(claim, volume string) {
	i.t.Helper()
	_, err := plane.Admin.CoreV1().PersistentVolumeClaims(space).Patch(i.t.Context(), claim, types.MergePatchType,
		[]byte(`{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}`), metav1.PatchOptions{})
	i.must(err)
	seen.until(i.t, "the PersistentVolume is larger", func() error {
		v, err := seen.volumes.Get(volume)
		if err == nil && v.Spec.Capacity.Storage().Value() != 128<<20 {
			err = fmt.Errorf("it has %s", v.Spec.Capacity.Storage())
		}
		return err
	})
}

// An attach that is refused is told on the claim, where its user looks, in the words of the refusal.
func TestRefusalIsToldOnTheClaim(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	i.awaitAttached(i.attach(volume, first))
	wanted := i.attach(volume, second)
	i.awaitRefused(wanted, second, first)
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeWarning, "AttachRefused", first, second)
}

// A migration is told on the claim when it begins and when it ends.
func TestMigrationIsToldOnTheClaim(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class, raw, shared).Name
	volume := i.bound(claim)
	held := i.attach(volume, first)
	i.awaitAttached(held)
	i.awaitAttached(i.attach(volume, second))
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeNormal, "MigrationStarted", first, second)
	i.detach(held)
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeNormal, "MigrationEnded", first, second)
}

// awaitEvent waits for an event of the driver whose message names all of that.
func (i *installation) awaitEvent(kind, name, level, reason string, words ...string) {
	i.t.Helper()
	seen.until(i.t, reason+" is told on "+kind+" "+name, func() error {
		events, err := seen.events.List(everything())
		if err != nil {
			return err
		}
		var others []string
		for _, e := range events {
			if e.InvolvedObject.Kind != kind || e.InvolvedObject.Name != name {
				continue
			}
			lacks := func(word string) bool { return !strings.Contains(e.Message, word) }
			if e.Type == level && e.Reason == reason && !slices.ContainsFunc(words, lacks) {
				return nil
			}
			others = append(others, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
		}
		return fmt.Errorf("only %q", others)
	})
}

// files are what lies in the pool directories of the simulated RDS.
func (i *installation) files(t *testing.T) []string {
	t.Helper()
	return i.filesOn(t, "rds")
}

func (i *installation) filesOn(t *testing.T, rds string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(i.in(rds), "*", "*", "k8s", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, strings.TrimPrefix(f, i.in(rds)))
	}
	return names
}
