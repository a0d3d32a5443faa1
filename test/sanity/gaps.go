package sanity

import (
	"fmt"
	"slices"
	"strings"
)

// specs is how many csi-sanity v5.6 has. With another number a new version has brought some, or lost some that proved something.
const specs = 103

// Gap is something that the driver does not offer, or that an RDS cannot do whatever the driver does.
type Gap struct {
	Limit string   // the words of one line of docs/limits.md that tell users so
	Specs []string // which therefore do not run, each after its state
}

// Gaps are what does not run against any RDS, in no place. A capability that is added takes its specs off this list: the test
// fails when one of them ran.
func Gaps() []Gap {
	return []Gap{
		{"A snapshot is on the RDS of its volume", []string{ // SNAPSHOT_ACCESSIBILITY_CONSTRAINTS: so nobody can choose
			"skipped: CreateSnapshot [Controller Server] should succeed when creating a snapshot with accessibility requirements",
		}},
		{"**No group snapshots.**", []string{
			"skipped: GroupController Service [GroupController Server] GroupControllerGetCapabilities should return appropriate capabilities",
			"skipped: GroupController Service [GroupController VolumeGroupSnapshots] CreateVolumeGroupSnapshot should fail when no name is provided",
			"skipped: GroupController Service [GroupController VolumeGroupSnapshots] DeleteVolumeGroupSnapshot should fail when no volume id is provided",
			"skipped: GroupController Service [GroupController VolumeGroupSnapshots] DeleteVolumeGroupSnapshot should succeed when an invalid volume id is used",
			"skipped: GroupController Service [GroupController VolumeGroupSnapshots] GetVolumeGroupSnapshot should fail when an invalid volume id is used",
			"skipped: GroupController Service [GroupController VolumeGroupSnapshots] GetVolumeGroupSnapshot should fail when no volume id is provided",
		}},
		{"**Nothing of a volume can be modified**", []string{ // MODIFY_VOLUME
			"skipped: Controller Service [Controller Server] CreateVolume should create volume with a volume attribute class",
			"skipped: Controller Service [Controller Server] CreateVolume should not create volume with an invalid volume attribute class",
			"skipped: ModifyVolume [Controller Server] should fail if no volume id is given",
			"skipped: ModifyVolume [Controller Server] should fail if specified mutable parameters are not supported by the volume",
			"skipped: ModifyVolume [Controller Server] should fail if volume does not exist",
			"skipped: ModifyVolume [Controller Server] should fail to modify a volume created with a volume attribute class if new mutable parameters are not supported by volume",
			"skipped: ModifyVolume [Controller Server] should modify a volume created with a volume attribute class",
			"skipped: ModifyVolume [Controller Server] should modify a volume created without a volume attribute class",
		}},
		{"**No volume is attached read-only**", []string{ // PUBLISH_READONLY
			"skipped: Controller Service [Controller Server] ControllerPublishVolume should fail when the volume is already published but is incompatible",
		}},
		{"**One spec of csi-sanity runs against no driver**", []string{ // TestPagesNeitherRepeatNorHide of internal/driver proves the same
			"pending: Controller Service [Controller Server] ListVolumes pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted",
		}},
	}
}

// ImagesStay is of an RDS that makes no disk item of an image which is there already: every restore and every clone needs that.
func ImagesStay() Gap {
	return Gap{"**An RDS that makes no disk item of an image which is there already**", []string{
		"skipped: Controller Service [Controller Server] CreateVolume should create volume from an existing source snapshot",
		"skipped: Controller Service [Controller Server] CreateVolume should create volume from an existing source volume",
	}}
}

const skipped = "skipped: "

// differences says what is wrong with what ran: something was left out that no gap explains, a gap names what ran or does not
// exist, or the suite is not the one whose specs are known.
func differences(passed int, left []string, gaps []Gap) (wrong []string) {
	var want []string
	for _, g := range gaps {
		want = append(want, g.Specs...)
	}
	for _, spec := range left {
		if !slices.Contains(want, spec) {
			wrong = append(wrong, "did not run, and should: "+spec)
		}
	}
	for _, spec := range want {
		if !slices.Contains(left, spec) {
			wrong = append(wrong, "is in the list of what does not run, and ran, or is no spec: "+spec)
		}
	}
	if n := passed + len(left); n != specs {
		wrong = append(wrong, fmt.Sprintf("csi-sanity has %d specs here, of %d it is known what they are", n, specs))
	}
	return wrong
}

// skip are the texts of the specs that the suite itself does not know to leave out.
func skip(gaps []Gap) (texts []string) {
	for _, g := range gaps {
		for _, spec := range g.Specs {
			texts = append(texts, strings.TrimPrefix(spec, skipped))
		}
	}
	return texts
}
