package sanity

import "slices"

// NotAdvertised are the specs of csi-sanity v5.6 that do not run, with why not. A capability that is added takes its specs
// off this list: the test fails when one of them ran.
func NotAdvertised() []string { return slices.Concat(groups(), others()) }

func groups() []string {
	return []string{
		// SNAPSHOT_ACCESSIBILITY_CONSTRAINTS: a snapshot is on the RDS of its volume, so nobody can choose.
		"skipped: CreateSnapshot [Controller Server] should succeed when creating a snapshot with accessibility requirements",

		// There is no group controller service: RouterOS cannot take snapshots of several volumes at one instant.
		"skipped: GroupController Service [GroupController Server] GroupControllerGetCapabilities should return appropriate capabilities",
		"skipped: GroupController Service [GroupController VolumeGroupSnapshots] CreateVolumeGroupSnapshot should fail when no name is provided",
		"skipped: GroupController Service [GroupController VolumeGroupSnapshots] DeleteVolumeGroupSnapshot should fail when no volume id is provided",
		"skipped: GroupController Service [GroupController VolumeGroupSnapshots] DeleteVolumeGroupSnapshot should succeed when an invalid volume id is used",
		"skipped: GroupController Service [GroupController VolumeGroupSnapshots] GetVolumeGroupSnapshot should fail when an invalid volume id is used",
		"skipped: GroupController Service [GroupController VolumeGroupSnapshots] GetVolumeGroupSnapshot should fail when no volume id is provided",
	}
}

func others() []string {
	return []string{
		// MODIFY_VOLUME: a volume has no mutable parameters.
		"skipped: Controller Service [Controller Server] CreateVolume should create volume with a volume attribute class",
		"skipped: Controller Service [Controller Server] CreateVolume should not create volume with an invalid volume attribute class",
		"skipped: ModifyVolume [Controller Server] should fail if no volume id is given",
		"skipped: ModifyVolume [Controller Server] should fail if specified mutable parameters are not supported by the volume",
		"skipped: ModifyVolume [Controller Server] should fail if volume does not exist",
		"skipped: ModifyVolume [Controller Server] should fail to modify a volume created with a volume attribute class if new mutable parameters are not supported by volume",
		"skipped: ModifyVolume [Controller Server] should modify a volume created with a volume attribute class",
		"skipped: ModifyVolume [Controller Server] should modify a volume created without a volume attribute class",

		// Switched off by the suite itself, for every driver. TestPagesNeitherRepeatNorHide of internal/driver proves the same.
		"pending: Controller Service [Controller Server] ListVolumes pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted",

		// PUBLISH_READONLY: a volume is published read-only to the pod, not to the node.
		"skipped: Controller Service [Controller Server] ControllerPublishVolume should fail when the volume is already published but is incompatible",
	}
}
