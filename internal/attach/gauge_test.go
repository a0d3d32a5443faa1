package attach

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

func many(n int) []Attachment {
	list := make([]Attachment, n)
	for i := range list {
		id := fmt.Sprint(i)
		list[i] = Attachment{UID: id, Name: "va-" + id, Volume: "rds1/pvc-" + id, Node: "node-" + fmt.Sprint(i%50), Attached: true}
	}
	return list
}

// B34: the existing driver's scrape waited for a lock that was held over calls
// to the API server. Here it answers while somebody holds the ledger's lock.
func TestNumberWaitsForNoLock_B34(t *testing.T) {
	l := NewLedger(Options{})
	l.Replace(many(3))
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := make(chan int)
	go func() {
		n, _ := l.Volumes()
		spread, _ := l.PerNode()
		answer <- n + len(spread)
	}()
	select {
	case n := <-answer:
		if n != 6 {
			t.Errorf("Volumes() and nodes = %d, want 3 and 3", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Volumes() or PerNode() waits for the lock")
	}
}

// A scrape's part costs the same with 10 attachments and with 10,000: two words
// are read, whatever they stand for. The same map is handed out until it changes.
func TestNumbersCostTheSameForAny(t *testing.T) {
	for _, n := range []int{10, 10_000} {
		l := NewLedger(Options{})
		l.ReplaceNodes(nil)
		l.Replace(many(n))
		if got := testing.AllocsPerRun(100, func() { l.Volumes(); l.PerNode() }); got != 0 {
			t.Errorf("with %d attachments the numbers allocate %v times", n, got)
		}
		before := l.spread.Load()
		l.Upsert(many(1)[0])
		l.Remove("nobody")
		if l.spread.Load() != before {
			t.Error("the map was copied though no number changed")
		}
		was := (*before)["node-0"]
		l.Remove("0")
		if now, _ := l.PerNode(); now["node-0"] != was-1 || (*before)["node-0"] != was {
			t.Errorf("node-0 has %d, then %d, and the map that was handed out says %d", was, now["node-0"], (*before)["node-0"])
		}
	}
}

func TestPerNode(t *testing.T) {
	l := NewLedger(Options{})
	if _, known := l.PerNode(); known {
		t.Error("known before the first list")
	}
	l.Replace([]Attachment{
		{UID: "1", Volume: "v", Node: "a", Attached: true}, {UID: "2", Volume: "v", Node: "b", Attached: true},
		{UID: "3", Volume: "v", Node: "a", Attached: true}, {UID: "4", Volume: "w", Node: "a", Attached: true}, {UID: "5", Volume: "x", Node: "c"},
	})
	l.Upsert(Attachment{UID: "4", Volume: "w", Node: "d", Attached: true}) // as no API server would
	l.Remove("2")
	got, known := l.PerNode()
	if want := map[string]int{"a": 1, "d": 1}; !maps.Equal(got, want) || !known {
		t.Errorf("PerNode = %v, %t; want %v", got, known, want)
	}
	if _, known := Standalone().PerNode(); known {
		t.Error("known without an authority")
	}
}

// What was a stand-in for a volume leaves nothing behind when the volume is known.
func TestStandInLeavesNothing(t *testing.T) {
	l := NewLedger(Options{})
	l.ReplaceNodes(nil)
	l.Replace([]Attachment{{UID: "1", Volume: "persistentvolume:pv", Node: "a", Attached: true}})
	l.Upsert(Attachment{UID: "1", Volume: "v", Node: "a", Attached: true})
	if len(l.volumes) != 1 || l.volumes["v"] == nil {
		t.Errorf("the ledger keeps %v", slices.Collect(maps.Keys(l.volumes)))
	}
}

// What is gone everywhere is forgotten: the ledger does not grow with history.
func TestNothingIsLeftOfWhatIsGone(t *testing.T) {
	l := NewLedger(Options{})
	l.ReplaceNodes([]Node{{Name: "a"}, {Name: "b"}})
	l.Replace(nil)
	for i := range 100 {
		id := fmt.Sprint(i)
		va := Attachment{UID: id, Volume: "v" + id, Node: "a", Mode: MultiNode}
		l.Upsert(va)
		if _, err := l.Publish(va.Volume, "a", MultiNode, time.Time{}); err != nil {
			t.Fatal(err)
		}
		l.UpsertNode(Node{Name: "a", InUse: []string{va.Volume}})
		va.Attached = true
		l.Upsert(va)
		l.UpsertNode(Node{Name: "a"})
		va.Deleting = true
		l.Upsert(va)
		l.Unpublish(va.Volume, "a")
		l.Remove(id)
	}
	if len(l.volumes)+len(l.byUID)+len(l.perNode)+len(l.pending)+len(l.moving) > 0 {
		t.Errorf("left: %d volumes, %d UIDs, %v, %v, %v", len(l.volumes), len(l.byUID), l.perNode, l.pending, l.moving)
	}
	l.RemoveNode("a")
	if len(l.nodes) != 1 {
		t.Errorf("left: %v", l.nodes)
	}
}

// A relist is one step for a reader: the number never passes through another.
func TestReplaceIsOneStepForReaders(t *testing.T) {
	l := NewLedger(Options{})
	list := many(500)
	l.Replace(list)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if n, known := l.Volumes(); n != 500 || !known {
					t.Errorf("during a relist: %d, known %t", n, known)
					return
				}
			}
		})
	}
	for range 50 {
		l.Replace(list)
	}
	close(done)
	readers.Wait()
}

func BenchmarkReplace10000(b *testing.B) {
	list := many(10_000)
	l := NewLedger(Options{})
	b.ReportAllocs()
	for b.Loop() {
		l.Replace(list)
	}
}

// BenchmarkNumbers is the ledger's part of a scrape.
func BenchmarkNumbers(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := NewLedger(Options{})
			l.Replace(many(n))
			b.ReportAllocs()
			for b.Loop() {
				l.Volumes()
				l.PerNode()
			}
		})
	}
}

// BenchmarkMigrations10000 is what a timer asks for: it costs by the migrations.
func BenchmarkMigrations10000(b *testing.B) {
	l, list := NewLedger(Options{}), many(10_000)
	for i := range list {
		list[i].Mode = MultiNode
	}
	other := list[7]
	other.UID, other.Node = "other", "node-x"
	l.Replace(append(list, other))
	b.ReportAllocs()
	for b.Loop() {
		l.Migrations()
	}
}

func BenchmarkPublish10000(b *testing.B) {
	l := NewLedger(Options{})
	l.ReplaceNodes(nil)
	l.Replace(many(10_000))
	for b.Loop() {
		if _, err := l.Publish("rds1/pvc-77", "node-27", SingleNode, time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}
