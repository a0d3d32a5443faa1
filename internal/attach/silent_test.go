package attach_test

import (
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// A kubelet's word that is older than an admission comes after it. Then the node mounts, its VolumeAttachment goes by force, and
// its next word comes later still: that is no wish. Of a volume that was seen attached, silence says that it was unmounted.
func TestSilenceThatIsOlderThanAnAdmission(t *testing.T) {
	for seen, want := range map[bool]string{false: "conflict with b", true: "ok"} {
		l := attach.NewLedger(attach.Options{})
		l.ReplaceNodes([]attach.Node{says("a"), says("b", "v")})
		l.Replace(nil)
		l.Upsert(waiting("1", "v", "b", 0))
		wantPublish(t, l, "v", "b", attach.SingleNode, "ok")
		if seen {
			l.Upsert(attached("1", "v", "b", 0))
		}
		l.UpsertNode(says("b"))
		l.Unpublish("v", "b")
		l.Replace([]attach.Attachment{waiting("2", "v", "a", 60)})
		l.ReplaceNodes([]attach.Node{says("a"), says("b", "v")})
		wantPublish(t, l, "v", "a", attach.SingleNode, want)
	}
}
