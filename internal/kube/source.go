package kube

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	listLimit      = time.Minute      // the API server's own limit for a list is as long
	watchOpenLimit = 30 * time.Second // until the API server answers that it watches
	watchSlack     = 30 * time.Second // after the time at which it should have ended the watch
)

// source is a reflector's ListerWatcher with deadlines, consistent first lists,
// and one log line when the API server stops answering and one when it is back.
type source struct {
	what   string
	logger *slog.Logger
	list   func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch  func(context.Context, metav1.ListOptions) (watch.Interface, error)
	failed atomic.Bool
}

// watchable is the client of one kind of object.
type watchable[List runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (List, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// watched is the source of all objects of a kind.
func watched[List runtime.Object](what string, api watchable[List], logger *slog.Logger) *source {
	return &source{
		what: what, logger: logger, watch: api.Watch,
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
	}
}

// IsWatchListSemanticsUnSupported makes the reflector list and then watch. The
// streaming list promises the same, but its retries do not end with the context
// (client-go v0.37).
func (s *source) IsWatchListSemanticsUnSupported() bool { return true }

// List is the form without a context; the reflector does not use it.
func (s *source) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

// Watch is the form without a context; the reflector does not use it.
func (s *source) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

// ListWithContext lists, and never from a cache that may be in the past.
func (s *source) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
	}
	limited, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	list, err := s.list(limited, o)
	s.note(ctx, err)
	return list, err
}

// WatchWithContext watches. A watch ends at the latest when the API server
// should have ended it: a connection may die without anybody telling us.
func (s *source) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	limited, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(watchOpenLimit, cancel)
	w, err := s.watch(limited, o)
	if err != nil {
		timer.Stop()
		cancel()
		s.note(ctx, err)
		return nil, err
	}
	if o.TimeoutSeconds != nil {
		timer.Reset(time.Duration(*o.TimeoutSeconds)*time.Second + watchSlack)
	}
	s.note(ctx, nil)
	return &limitedWatch{Interface: w, end: func() { timer.Stop(); cancel() }}, nil
}

// limitedWatch gives its timer back when it is stopped.
type limitedWatch struct {
	watch.Interface
	end func()
}

// Stop is called by the reflector in any case.
func (w *limitedWatch) Stop() {
	w.Interface.Stop()
	w.end()
}

// note logs changes only: an outage is two lines, however long it lasts. That a
// version is too old to go on from (410) is the API server's daily business.
func (s *source) note(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
	case err != nil && !s.failed.Swap(true):
		s.logger.WarnContext(ctx, "cannot read from the API server, asking on", "what", s.what, "err", err)
	case err == nil && s.failed.Swap(false):
		s.logger.InfoContext(ctx, "reading from the API server again", "what", s.what)
	}
}
