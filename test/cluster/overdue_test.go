//go:build cluster

package main

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// shortest is the least that a StorageClass may give a migration.
const shortest = 30 * time.Second

const migrating = "rds_csi_migrations_active"

func migrated(result string) string {
	return fmt.Sprintf(`rds_csi_migrations_total{result=%q}`, result)
}

// Migrations that end in each of the ways: on the new node, on the old one, and past the deadline, which is told, and
// changes nothing for two nodes that have the volume. One that waited for the second node past the deadline is refused,
// by the next controller too, until it is asked for anew.
func TestMigrationOverdue(t *testing.T) {
	t.Parallel()
	i := newInstallation(t, reconciled("2s", "1h"), func(i *installation, v values) {
		v["storageClasses"] = []any{storageClass(i.class, map[string]any{"migrationTimeout": shortest.String()})}
	})
	first, second := i.node("first"), i.node("second")
	disk := func(suffix string) *corev1.PersistentVolume {
		return i.bound(i.makeClaim(i.class+"-"+suffix, raw, shared).Name)
	}
	stays, waits, done, back := disk("stays"), disk("waits"), disk("done"), disk("back")
	for _, v := range []*corev1.PersistentVolume{stays, waits, done, back} {
		i.awaitAttached(i.attach(v, first))
	}
	f := i.follow()
	f.from(t, gauge, "4")
	f.await(t, migrating, "0")

	i.letPass(attachmentName(back, first), time.Second) // who came second is told by whole seconds
	i.awaitAttached(i.attach(stays, second))
	f.await(t, migrating, "1")
	i.migrate(done, second, first)
	f.await(t, migrated("completed"), "1")
	i.migrate(back, second, second)
	f.await(t, migrated("cancelled"), "1")
	f.await(t, migrating, "1")

	i.stopSidecar("csi-attacher") // which would have the second node attached in time
	late := i.attach(waits, second)
	f.await(t, drift("migration_overdue"), "1")
	i.awaitDescribed(stays.Spec.ClaimRef, "MigrationOverdue", first, second)
	f.await(t, migrating, "1") // a node that waits has nothing yet
	i.letPass(late, shortest)
	i.startSidecar("csi-attacher")
	i.awaitRefused(late, second, first, shortest.String())
	i.awaitDescribed(waits.Spec.ClaimRef, "AttachRefused", first, second, shortest.String())
	i.awaitAttached(attachmentName(stays, first), attachmentName(stays, second))
	f.await(t, gauge, "4")
	i.restart()
	i.awaitRefusedAgain(late, second, first, shortest.String())
	f.await(t, drift("migration_overdue"), "1")
	f.await(t, migrating, "1")

	i.detach(attachmentName(stays, first))
	f.await(t, migrated("expired"), "1")
	i.awaitDescribed(stays.Spec.ClaimRef, "MigrationEnded", "expired")
	f.await(t, drift("migration_overdue"), "0")
	f.await(t, migrating, "0")
	i.detach(late)
	i.awaitGone(late)
	i.awaitAttached(i.attach(waits, second))
	f.await(t, migrating, "1")
	f.only(t, gauge, "4")
}

// migrate lets a second node have a volume, and then takes it from one of the two.
func (i *installation) migrate(v *corev1.PersistentVolume, to, leaves string) {
	i.t.Helper()
	i.awaitAttached(i.attach(v, to))
	i.awaitDescribed(v.Spec.ClaimRef, "MigrationStarted", to)
	i.detach(attachmentName(v, leaves))
	i.awaitGone(attachmentName(v, leaves))
}

// letPass waits until a VolumeAttachment is older than that, by the API server's stamp, which is in whole seconds.
func (i *installation) letPass(attachment string, age time.Duration) {
	i.t.Helper()
	select {
	case <-time.After(time.Until(i.created(attachment).Add(age + time.Second))):
	case <-i.t.Context().Done():
		i.t.Fatal("interrupted")
	}
}
