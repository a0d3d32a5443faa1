package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/record/util"
)

// EventType says whether somebody has to do something. It is a plain string, so
// that a consumer can describe a Recorder without importing this package.
type EventType = string

// The two that Kubernetes knows.
const (
	Normal  EventType = corev1.EventTypeNormal
	Warning EventType = corev1.EventTypeWarning
)

// Reasons of events. Scripts and alerts match them: they do not change.
const (
	// AttachRefused: a node may not have the volume now. Stop what uses it on the node that the message names.
	AttachRefused = "AttachRefused"
	// AttachmentDrift: two authorities contradict each other for longer than the grace time. Follow the step in the message.
	AttachmentDrift = "AttachmentDrift"
	// MigrationStarted: a second node got the volume, both may write until the deadline in the message. Nothing to do.
	MigrationStarted = "MigrationStarted"
	// MigrationEnded: one of the two nodes gave the volume up. Nothing to do.
	MigrationEnded = "MigrationEnded"
	// MigrationOverdue: two nodes have the volume past the deadline. Finish or cancel the migration of the virtual machine.
	MigrationOverdue = "MigrationOverdue"
	// ExportRepaired: the RDS had lost the export of an attached volume, it is back. Look for a reboot of the RDS.
	ExportRepaired = "ExportRepaired"
	// VolumeRepaired: an attach has put right on the RDS what the message says. Look for who made it wrong, unless the
	// volume is one of the existing driver's, which is adopted so.
	VolumeRepaired = "VolumeRepaired"
	// SnapshotProgress: how far the full copy for a snapshot has come, on a pool that cannot do it without. Nothing to do;
	// a pod that is to use the volume waits until it is done.
	SnapshotProgress = "SnapshotProgress"
	// RepairFailed: the driver could not repair what it found. The message says what is left to do by hand.
	RepairFailed = "RepairFailed"
)

const (
	maxMessage  = 1024        // bytes; the limit of the events API
	queuedLimit = 256         // events that wait for the API server
	writeLimit  = time.Minute // from the first attempt to write one event to the last
)

// claims finds the Kubernetes objects behind a volume, in memory.
type claims interface {
	// Claims answers the PersistentVolumes of a canonical handle with the claims that they are bound to.
	Claims(volume string) []Claim
}

// Recorder writes Events: to the claim that a volume is bound to, else to its
// PersistentVolume, else to the log. Its methods never wait: an event goes into a
// queue that one goroutine empties, and one that finds the queue full is dropped
// and counted in the log. Events are hints for people; what is still queued when
// the process ends is lost. A nil Recorder records nothing.
//
// It is client-go's correlator of tools/record (counting, aggregation, spam
// filter) behind a queue of our own, not one of its two broadcasters:
//
//   - tools/events starts goroutines without bound for an API server that is down,
//     has no spam filter, and takes all messages of one reason for one series: the
//     refusal of a second node would show the text of the first.
//   - the broadcaster of tools/record drops without a word when its sink is slow,
//     and its sink has no deadline.
//
// The same event again patches the count of the first one. More than ten
// different messages of one reason about one object within ten minutes become one
// "combined from similar events". Past 25 writes of one reason about one object
// there is one more every five minutes; the count goes on meanwhile. The API
// server forgets an Event an hour after its last write (--event-ttl); the next
// patch is then answered NotFound, and the event is created anew with its count.
//
// Events are written in the core group: create and patch of "events" is what the
// service account needs in all namespaces, the same as the sidecars'.
type Recorder struct {
	source  corev1.EventSource
	api     corev1client.EventsGetter
	claims  claims
	logger  *slog.Logger
	queue   chan *corev1.Event
	dropped atomic.Uint64
}

// NewRecorder starts a recorder that works until ctx ends.
func (c *Client) NewRecorder(ctx context.Context, component, host string) *Recorder {
	r := c.newRecorder(component, host, c)
	go r.run(ctx)
	return r
}

func (c *Client) newRecorder(component, host string, known claims) *Recorder {
	return &Recorder{
		source: corev1.EventSource{Component: component, Host: host},
		api:    c.api.CoreV1(), claims: known, logger: c.cfg.Logger,
		queue: make(chan *corev1.Event, queuedLimit),
	}
}

// Volume records an event about a volume, named by its canonical handle.
func (r *Recorder) Volume(volume string, kind EventType, reason, message string) {
	if r == nil {
		return
	}
	objects := involved(r.claims.Claims(volume))
	if len(objects) == 0 {
		r.logger.Log(context.Background(), level(kind), "no PersistentVolume to record an event on",
			"volume", volume, "reason", reason, "message", message)
	}
	for _, object := range objects {
		r.enqueue(object, kind, reason, message)
	}
}

// Node records an event about a node. As kubelet does it, the node's name stands
// for its UID; kubectl describe node asks for both.
func (r *Recorder) Node(name string, kind EventType, reason, message string) {
	if r == nil {
		return
	}
	r.enqueue(corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(name)}, kind, reason, message)
}

func level(kind EventType) slog.Level {
	if kind == Warning {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// involved are the claims that are bound, or the PersistentVolumes when none is.
// What stands on a claim that was deleted nobody finds: kubectl describe asks for
// the UID of a claim that is there.
func involved(known []Claim) (objects []corev1.ObjectReference) {
	for _, c := range known {
		if c.Namespace != "" && !c.Deleted {
			objects = append(objects, corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: types.UID(c.UID),
			})
		}
	}
	if len(objects) > 0 {
		return objects
	}
	for _, c := range known {
		objects = append(objects, corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolume", Name: c.PV, UID: types.UID(c.PVUID)})
	}
	return objects
}

// enqueue never waits. Events about what is in no namespace stand in "default":
// the API server refuses them elsewhere.
func (r *Recorder) enqueue(object corev1.ObjectReference, kind EventType, reason, message string) {
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cmp.Or(object.Namespace, metav1.NamespaceDefault),
			Name:      util.GenerateEventName(object.Name, now.UnixNano()),
		},
		InvolvedObject: object, Type: kind, Reason: reason, Message: cut(message),
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: r.source, ReportingController: r.source.Component, ReportingInstance: r.source.Host,
	}
	select {
	case r.queue <- event:
	default:
		r.dropped.Add(1)
	}
}

// cut makes a message one that the API takes: UTF-8, and not too long.
func cut(message string) string {
	const ellipsis = "…"
	message = strings.ToValidUTF8(message, "?")
	if len(message) <= maxMessage {
		return message
	}
	end := maxMessage - len(ellipsis)
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + ellipsis
}

// run writes what is queued until ctx ends.
func (r *Recorder) run(ctx context.Context) {
	correlator := newCorrelator()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-r.queue:
			r.record(ctx, correlator, event)
		}
		if n := r.dropped.Swap(0); n > 0 {
			r.logger.WarnContext(ctx, "events dropped: the API server is slower than they come", "dropped", n)
		}
	}
}

func newCorrelator() *record.EventCorrelator {
	return record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{
		MessageFunc: func(e *corev1.Event) string { return cut(record.EventAggregatorByReasonMessageFunc(e)) },
		// By default all reasons share one budget per object: refusals, which the attacher repeats, would use up that of the rest.
		SpamKeyFunc: func(e *corev1.Event) string {
			o := e.InvolvedObject
			return strings.Join([]string{o.Kind, o.Namespace, o.Name, string(o.UID), e.Type, e.Reason}, "\n")
		},
	})
}

// record writes one event, or says in the log why it could not.
func (r *Recorder) record(ctx context.Context, correlator *record.EventCorrelator, event *corev1.Event) {
	result, err := correlator.EventCorrelate(event)
	switch {
	case err != nil:
	case result.Skip: // too many of the kind; the count knows of it
		return
	default:
		err = r.deliver(ctx, correlator, result)
	}
	if err != nil {
		r.logger.WarnContext(ctx, "event not recorded", "object", event.InvolvedObject.Kind+" "+event.InvolvedObject.Name,
			"namespace", event.InvolvedObject.Namespace, "reason", event.Reason, "message", event.Message, "err", err)
	}
}

// deliver tries again while the API server cannot be reached.
func (r *Recorder) deliver(ctx context.Context, correlator *record.EventCorrelator, result *record.EventCorrelateResult) error {
	began := time.Now()
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		written, err := r.write(ctx, result)
		if err == nil {
			correlator.UpdateState(written)
			return nil
		}
		if !passing(err) || time.Since(began) > writeLimit {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// write patches the count of an event that was recorded before, or creates it.
func (r *Recorder) write(ctx context.Context, result *record.EventCorrelateResult) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	event := result.Event
	events := r.api.Events(event.Namespace)
	if event.Count > 1 {
		written, err := events.Patch(ctx, event.Name, types.StrategicMergePatchType, result.Patch, metav1.PatchOptions{})
		if !apierrors.IsNotFound(err) {
			return written, err
		}
	}
	event.ResourceVersion = ""
	written, err := events.Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return event, nil // ours: the answer to an earlier attempt was lost
	}
	if err != nil {
		return nil, fmt.Errorf("create event %s/%s: %w", event.Namespace, event.Name, err)
	}
	return written, nil
}

// passing says whether the same call may succeed later: the API server was not
// reached, or is too busy. Every other answer is its last word.
func passing(err error) bool {
	return apierrors.ReasonForError(err) == metav1.StatusReasonUnknown || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err)
}
