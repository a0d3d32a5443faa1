package reconcile

import (
	"fmt"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// many is a view in which n volumes are attached to a hundred nodes, and all is well.
func many(n int) View {
	items, attachments := make([]appliance.Volume, n), make([]attach.Attachment, n)
	for i := range n {
		items[i] = item(fmt.Sprintf("pvc-%d", i))
		attachments[i] = attachmentOf("rds1/"+items[i].ID.Slot, fmt.Sprintf("node-%d", i%100))
	}
	v := on(items...).with(attachments...)
	v.Nodes = nil
	for i := range 100 {
		v.Nodes = append(v.Nodes, nodeOf(fmt.Sprintf("node-%d", i)))
	}
	return v
}

// The comparison runs once a minute beside the calls: it must be milliseconds, also in a large cluster.
func BenchmarkFindings(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v := many(n)
			b.ReportAllocs()
			for b.Loop() {
				if found := Findings(v); len(found) > 0 {
					b.Fatal(found[0].Detail)
				}
			}
		})
	}
}
