package attach

import (
	"fmt"
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
	go func() { n, _ := l.Volumes(); answer <- n }()
	select {
	case n := <-answer:
		if n != 3 {
			t.Errorf("Volumes() = %d, want 3", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Volumes() waits for the lock")
	}
}

func TestNumberAllocatesNothing(t *testing.T) {
	l := NewLedger(Options{})
	l.Replace(many(10_000))
	if got := testing.AllocsPerRun(100, func() { l.Volumes() }); got != 0 {
		t.Errorf("Volumes() allocates %v times", got)
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

func BenchmarkPublish10000(b *testing.B) {
	l := NewLedger(Options{})
	l.ReplaceNodes(nil)
	l.Replace(many(10_000))
	for b.Loop() {
		if err := l.Publish("rds1/pvc-77", "node-27", SingleNode, time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}
