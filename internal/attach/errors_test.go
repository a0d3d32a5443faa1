package attach_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/attach"
)

const (
	detach  = "stop the pod there and wait for the detach"
	unmount = "stop the pod there and let kubelet unmount the volume"
	offline = "if that machine is off for good, taint its Node with node.kubernetes.io/out-of-service or delete the Node"
)

func scaleDown(node string) string {
	return fmt.Sprintf("scale the pod there down, or keep it off node %s, until kubelet no longer lists the volume "+
		"(kubectl get node %s -o jsonpath={.status.volumesInUse})", node, node)
}

// Each refusal says who is in the way, what proves it, and the way out of just that.
func TestConflictNamesVolumeNodesAndWayOut(t *testing.T) {
	b := waiting("2", "rds1/v", "b", 60)
	tests := map[string]struct {
		list  []attach.Attachment
		nodes []attach.Node
		then  func(*attach.Ledger)
		want  string
	}{
		"attached": {
			[]attach.Attachment{attached("1", "rds1/v", "a", 0), b}, []attach.Node{says("a", "rds1/v")}, nil,
			"node a (VolumeAttachment va-1 is attached) is in the way; " + detach,
		},
		"asked first": {
			[]attach.Attachment{waiting("1", "rds1/v", "a", 0), b}, []attach.Node{says("a", "rds1/v")}, nil,
			"node a (VolumeAttachment va-1 asked first or at the same time) is in the way; " + detach,
		},
		"mounted without a VolumeAttachment": {
			[]attach.Attachment{attached("1", "rds1/v", "a", 0), b}, []attach.Node{says("a", "rds1/v")},
			func(l *attach.Ledger) { l.Remove("1") },
			"node a (its kubelet has it in use) is in the way; " + unmount + "; " + offline,
		},
		"mounted or waited for": {
			[]attach.Attachment{b}, []attach.Node{says("a", "rds1/v"), says("b", "rds1/v")}, nil,
			"node a (its kubelet has it mounted, or a pod there waits for it) is in the way; " + scaleDown("a") + "; " + offline,
		},
		"waited for, asked later": {
			[]attach.Attachment{b, waiting("3", "rds1/v", "c", 600)}, []attach.Node{says("c", "rds1/v"), says("b", "rds1/v")}, nil,
			"node c (its kubelet has it mounted, or a pod there waits for it) is in the way; " + scaleDown("c") + "; " + offline,
		},
		"several": {
			[]attach.Attachment{attached("1", "rds1/v", "a", 0), b}, []attach.Node{says("c", "rds1/v")}, nil,
			"nodes a (VolumeAttachment va-1 is attached), c (its kubelet has it mounted, or a pod there waits for it) are in the way; " +
				detach + "; " + scaleDown("c") + "; " + offline,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := attach.NewLedger(attach.Options{})
			l.Replace(nil)
			l.Replace(tt.list)
			l.ReplaceNodes(tt.nodes)
			if tt.then != nil {
				tt.then(l)
			}
			_, err := l.Publish("rds1/v", "b", attach.SingleNode, at(60))
			want := "volume rds1/v cannot be attached to node b: " + tt.want
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// The API server takes no more than 1024 bytes of an error in a VolumeAttachment,
// the attacher's own words included.
func TestConflictsAreShort(t *testing.T) {
	hash := strings.Repeat("0123456789abcdef", 4)
	for name, node := range map[string]string{
		"usual":   "worker-%02d",
		"long":    "ip-10-0-0-%02d.eu-central-1.compute.internal.example.com",
		"longest": strings.Repeat("x", 240) + "ü-%02d",
	} {
		t.Run(name, func(t *testing.T) {
			var list []attach.Attachment
			var nodes []attach.Node
			for i := range 30 {
				a := reads(attached(fmt.Sprint(i), "rds1/pvc-1", fmt.Sprintf(node, i), 0))
				a.Name = "csi-" + hash
				if i%3 > 0 {
					list = append(list, a)
				}
				if i%3 == 0 {
					nodes = append(nodes, says(a.Node, "rds1/pvc-1"))
				}
			}
			l := attach.NewLedger(attach.Options{})
			l.Replace(append(list, waiting("b", "rds1/pvc-1", "b", 60)))
			l.ReplaceNodes(nodes)
			_, err := l.Publish("rds1/pvc-1", "b", attach.SingleNode, at(60))
			uses, unknown := l.InUse("rds1/pvc-1")
			if err == nil || unknown != nil {
				t.Fatalf("%v, %v", err, unknown)
			}
			for what, text := range map[string]string{"volume rds1/pvc-1 cannot be attached to node b: nodes ": err.Error(), "in use on nodes ": attach.Explain(uses)} {
				if len(text) > 700 || strings.ToValidUTF8(text, "?") != text || !strings.HasPrefix(text, what) || !strings.HasSuffix(text, "delete the Node") {
					t.Errorf("%d bytes: %s", len(text), text)
				}
			}
			if name == "usual" && !strings.Contains(err.Error(), "worker-00 (its kubelet") || name != "longest" && !strings.Contains(err.Error(), " more are in the way") {
				t.Errorf("not named: %v", err)
			}
		})
	}
}

// So is the other refusal that names nodes.
func TestExpiredMigrationsAreShort(t *testing.T) {
	longest := strings.Repeat("x", 253)
	e := attach.MigrationExpiredError{Volume: "rds1/pvc-1", Node: longest, Other: longest, Began: at(0), Limit: 5 * time.Minute}
	text := e.Error()
	if len(text) > 700 || !strings.HasPrefix(text, "volume rds1/pvc-1 cannot be attached to node xxx") || !strings.HasSuffix(text, "gives later volumes more time") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func TestExplain(t *testing.T) {
	for want, uses := range map[string][]attach.Use{
		"in use on node a (a VolumeAttachment is attached); " + detach:                                                                   {{"a", attach.Attached}},
		"in use on node a (a VolumeAttachment asks for it); " + detach:                                                                   {{"a", attach.Asked}},
		"in use on node a (its kubelet has it in use); " + unmount + "; " + offline:                                                      {{"a", attach.Mounted}},
		"in use on node a (a pod there waits for it); " + scaleDown("a") + "; " + offline:                                                {{"a", attach.Awaited}},
		"in use on node a (its kubelet has it mounted, or a pod there waits for it); " + scaleDown("a") + "; " + offline:                 {{"a", attach.MayBeMounted}},
		"in use on nodes a (a VolumeAttachment is attached), b (its kubelet has it in use); " + detach + "; " + unmount + "; " + offline: {{"a", attach.Attached}, {"b", attach.Mounted}},
	} {
		if got := attach.Explain(uses); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
