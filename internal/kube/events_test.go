package kube_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8stesting "k8s.io/client-go/testing"

	"github.com/rds-csi/rds-csi/internal/kube"
)

// book is what a volume's Kubernetes objects are in a test.
type book map[string][]kube.Claim

func (b book) Claims(volume string) []kube.Claim { return b[volume] }

func bound(name string) kube.Claim {
	return kube.Claim{PV: "pv-" + name, PVUID: "pvuid-" + name, Namespace: "db", Name: name, UID: "uid-" + name}
}

const refusal = "volume rds1/v1 cannot be attached to node b: node a has it (attached)"

// recorder records until the test's cluster ends.
func (c *cluster) recorder(b book) *kube.Recorder {
	ctx, cancel := context.WithCancel(c.t.Context())
	c.t.Cleanup(func() { cancel(); synctest.Wait() })
	return c.client().NewRecorderFor(ctx, b)
}

// events are what the API server has, by their reason and name of the object.
func (c *cluster) events() []corev1.Event {
	c.t.Helper()
	synctest.Wait()
	list, err := c.api.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
	c.must(err)
	slices.SortFunc(list.Items, func(a, b corev1.Event) int {
		return strings.Compare(a.Reason+a.InvolvedObject.Name, b.Reason+b.InvolvedObject.Name)
	})
	return list.Items
}

// writes counts the writes of events that the API server saw.
func (c *cluster) writes() (creates, patches int) {
	for _, a := range c.api.Actions() {
		switch {
		case a.Matches("create", "events"):
			creates++
		case a.Matches("patch", "events"):
			patches++
		}
	}
	return creates, patches
}

func TestEventsGoWhereUsersLook(t *testing.T) {
	pv := kube.Claim{PV: "pv-free", PVUID: "pvuid-free"}
	released := bound("old")
	released.Deleted = true
	tests := map[string]struct {
		known []kube.Claim
		want  []string // kind namespace/name uid, and the event's namespace
	}{
		"a bound claim":                {[]kube.Claim{bound("data")}, []string{"PersistentVolumeClaim db/data uid-data in db"}},
		"nothing bound":                {[]kube.Claim{pv}, []string{"PersistentVolume /pv-free pvuid-free in default"}},
		"bound and not":                {[]kube.Claim{pv, bound("data")}, []string{"PersistentVolumeClaim db/data uid-data in db"}},
		"its claim was deleted":        {[]kube.Claim{released}, []string{"PersistentVolume /pv-old pvuid-old in default"}},
		"one of its claims was":        {[]kube.Claim{released, bound("data")}, []string{"PersistentVolumeClaim db/data uid-data in db"}},
		"two claims, one disk":         {[]kube.Claim{bound("a"), bound("b")}, []string{"PersistentVolumeClaim db/a uid-a in db", "PersistentVolumeClaim db/b uid-b in db"}},
		"nothing known, so to the log": {nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.recorder(book{"rds1/v1": tt.known}).Volume("rds1/v1", kube.Warning, kube.AttachRefused, refusal)
				var got []string
				for _, e := range c.events() {
					o := e.InvolvedObject
					got = append(got, fmt.Sprintf("%s %s/%s %s in %s", o.Kind, o.Namespace, o.Name, o.UID, e.Namespace))
					if e.Type != corev1.EventTypeWarning || e.Reason != "AttachRefused" || e.Message != refusal || e.Count != 1 ||
						e.Source.Component != "rds-csi" || e.Source.Host != "host-0" || e.FirstTimestamp.IsZero() || o.APIVersion != "v1" {
						t.Errorf("the event is %+v", e)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("events on %q, want %q", got, tt.want)
				}
				if n := c.logs.count(refusal); (n == 1) != (len(tt.want) == 0) {
					t.Errorf("%d log lines", n)
				}
			})
		})
	}
}

func TestNodeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.recorder(nil).Node("node-a", kube.Normal, kube.AttachmentDrift, "x")
		list := c.events()
		if len(list) != 1 || list[0].InvolvedObject.Kind != "Node" || list[0].InvolvedObject.UID != "node-a" || list[0].Namespace != "default" {
			t.Errorf("events: %+v", list)
		}
	})
}

// The attacher asks again every few seconds, and then minutes: users see one event
// with a count, and the API server a bounded number of writes.
func TestARepeatedRefusalIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.recorder(book{"rds1/v1": {bound("data")}})
		const times = 200
		for range times {
			r.Volume("rds1/v1", kube.Warning, kube.AttachRefused, refusal)
			<-time.After(5 * time.Second)
		}
		// Refused 200 times does not silence the rest.
		r.Volume("rds1/v1", kube.Warning, kube.MigrationOverdue, "overdue")
		list := c.events()
		if len(list) != 2 || list[0].Reason != kube.AttachRefused || list[1].Reason != kube.MigrationOverdue {
			t.Fatalf("events: %+v", list)
		}
		// What is not written is counted, and said with the next write: one in five minutes.
		if n := list[0].Count; n <= times-60 || n > times {
			t.Errorf("the count is %d of %d", n, times)
		}
		if age := list[0].LastTimestamp.Sub(list[0].FirstTimestamp.Time); age < 10*time.Minute {
			t.Errorf("last seen %s after first seen", age)
		}
		if creates, patches := c.writes(); creates != 2 || patches < 24 || patches > 30 {
			t.Errorf("%d creates and %d patches for %d refusals", creates, patches, times)
		}
	})
}

// Messages that differ (a number in them, say) are combined after ten.
func TestSimilarEventsAreCombined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.recorder(book{"rds1/v1": {bound("data")}})
		for i := range 15 {
			r.Volume("rds1/v1", kube.Warning, kube.AttachmentDrift, fmt.Sprintf("%d %s", i, strings.Repeat("x", 1020)))
			<-time.After(time.Second)
		}
		list := c.events()
		if len(list) != 10 {
			t.Errorf("there are %d events", len(list))
		}
		for _, e := range list {
			if len(e.Message) > 1024 {
				t.Errorf("a message of %d bytes", len(e.Message))
			}
		}
	})
}

// The event was forgotten by the API server (an hour after its last write).
func TestACountOutlivesItsEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.recorder(book{"rds1/v1": {bound("data")}})
		r.Volume("rds1/v1", kube.Warning, kube.AttachRefused, refusal)
		first := c.events()[0]
		c.must(c.api.CoreV1().Events("db").Delete(t.Context(), first.Name, metav1.DeleteOptions{}))
		r.Volume("rds1/v1", kube.Warning, kube.AttachRefused, refusal)
		if list := c.events(); len(list) != 1 || list[0].Count != 2 {
			t.Errorf("events: %+v", list)
		}
	})
}

func TestMessagesAreCut(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"short":              {refusal, refusal},
		"as long as allowed": {strings.Repeat("x", 1024), strings.Repeat("x", 1024)},
		"too long":           {strings.Repeat("x", 1025), strings.Repeat("x", 1021) + "…"},
		"at a rune":          {"x" + strings.Repeat("ä", 600), "x" + strings.Repeat("ä", 510) + "…"},
		"not UTF-8":          {"a\xe4b", "a?b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.recorder(nil).Node("a", kube.Normal, kube.MigrationEnded, tt.in)
				got := c.events()[0].Message
				if got != tt.want || len(got) > 1024 || !utf8.ValidString(got) {
					t.Errorf("%q (%d bytes), want %q", got, len(got), tt.want)
				}
			})
		})
	}
}

// An API server that does not answer costs the caller nothing: what does not fit
// is dropped and counted, and what fits is written when it is back.
func TestRecordingNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var down atomic.Bool
		down.Store(true)
		c.api.PrependReactor("create", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
			return down.Load(), nil, errors.New("connection refused")
		})
		r := c.recorder(nil)
		const queue, all = 256, 300
		start := time.Now()
		for i := range all {
			r.Node(fmt.Sprint("node-", i), kube.Warning, kube.AttachmentDrift, "drift")
			synctest.Wait()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("recording took %s", took)
		}
		<-time.After(20 * time.Second)
		down.Store(false)
		<-time.After(10 * time.Second)
		if n := len(c.events()); n != queue+1 { // one was out of the queue, on its way
			t.Errorf("%d of %d events were written", n, all)
		}
		if n := c.logs.count("events dropped: the API server is slower than they come dropped=43"); n != 1 {
			t.Errorf("the drop was logged %d times: %q", n, c.logs.lines)
		}
	})
}

// What the API server refuses for good is not tried again, and does not hold up the next.
func TestARefusedEventIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		answers := []error{
			apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "x", errors.New("namespace is being terminated")),
			apierrors.NewServiceUnavailable("starting"), apierrors.NewTooManyRequests("busy", 1), context.DeadlineExceeded, nil,
		}
		c.api.PrependReactor("create", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
			err := answers[0]
			answers = answers[min(1, len(answers)-1):]
			return err != nil, nil, err
		})
		r := c.recorder(nil)
		r.Node("refused", kube.Warning, kube.AttachmentDrift, "x")
		r.Node("late", kube.Warning, kube.AttachmentDrift, "x")
		<-time.After(time.Minute)
		if list := c.events(); len(list) != 1 || list[0].InvolvedObject.Name != "late" {
			t.Errorf("events: %+v", list)
		}
		if n := c.logs.count("event not recorded object=Node refused"); n != 1 {
			t.Errorf("logged %d times: %q", n, c.logs.lines)
		}
	})
}

// An API server that stays away costs one event a minute, not the recorder.
func TestAnEventIsGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.api.PrependReactor("create", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		c.recorder(nil).Node("a", kube.Warning, kube.AttachmentDrift, "x")
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if n := c.logs.count("event not recorded"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		before, _ := c.writes()
		<-time.After(time.Hour)
		if after, _ := c.writes(); after != before {
			t.Errorf("%d attempts, then %d more", before, after-before)
		}
	})
}

// The goroutine ends with ctx, also in the middle of trying (synctest fails when
// it does not), and recording afterwards is safe.
func TestTheRecorderEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.api.PrependReactor("create", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		ctx, cancel := context.WithCancel(t.Context())
		r := c.client().NewRecorder(ctx, "rds-csi", "host-0")
		r.Node("a", kube.Warning, kube.AttachmentDrift, "x")
		synctest.Wait()
		cancel()
		synctest.Wait()
		for range 1000 {
			r.Node("a", kube.Warning, kube.AttachmentDrift, "x")
		}
	})
}

func TestANilRecorderRecordsNothing(*testing.T) {
	var r *kube.Recorder
	r.Volume("rds1/v1", kube.Warning, kube.AttachRefused, refusal)
	r.Node("a", kube.Normal, kube.MigrationEnded, "x")
}

// The page for users lists every reason there is, with its type, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	source, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	var declared, documented []string
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z]\w+) = "(\w+)"$`).FindAllStringSubmatch(string(source), -1) {
		if m[1] != m[2] {
			t.Errorf("constant %s is the reason %s", m[1], m[2])
		}
		declared = append(declared, m[2])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (?:Normal|Warning) \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	if len(declared) != 9 || !slices.Equal(declared, documented) {
		t.Errorf("the code has %v, the page %v", declared, documented)
	}
}
