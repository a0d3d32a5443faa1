package driver

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// listed is an entry of a list, and what it is about.
type listed[T any] struct {
	id    appliance.ID
	entry T
}

// question asks one RDS for its part of a list.
type question[T any] func(ctx context.Context, name string, rds Appliance) ([]listed[T], error)

// page is the part of a list that a caller wants.
type page struct {
	after appliance.ID // zero: from the beginning
	most  int          // 0: all
}

// list answers a page of what is on these appliances, in the order of their names and then of slots, and the token of the next page.
//
// All are asked at once where everything is wanted. For a page they are asked one after the other, beginning with the one that the
// page before ended on, until it is full: those before it are not asked again, nor those behind it yet. One that is asked is asked
// for all that it has, since only the RDS knows what is there now, and nothing is kept between two pages.
func list[T any](ctx context.Context, appliances map[string]Appliance, want page, ask question[T]) (shown []T, next string, err error) {
	names := want.pending(appliances)
	atOnce := len(names)
	if want.most > 0 {
		atOnce = 1
	}
	var found []listed[T]
	for len(names) > 0 && (want.most == 0 || len(found) < want.most) {
		more, err := everywhere(ctx, appliances, names[:atOnce], ask)
		if err != nil {
			return nil, "", err
		}
		found = append(found, slices.DeleteFunc(more, func(e listed[T]) bool { return byPlace(e.id, want.after) <= 0 })...)
		names = names[atOnce:]
	}
	slices.SortFunc(found, func(a, b listed[T]) int { return byPlace(a.id, b.id) })
	if want.most > 0 && (len(found) > want.most || len(found) == want.most && len(names) > 0) {
		found = found[:want.most]
		next = tokenOf(found[want.most-1].id)
	}
	shown = make([]T, 0, len(found))
	for _, e := range found {
		shown = append(shown, e.entry)
	}
	return shown, next, nil
}

// pending are those that have part in this page or in a later one.
func (p page) pending(appliances map[string]Appliance) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(appliances)), func(name string) bool { return name < p.after.RDS })
}

func byPlace(a, b appliance.ID) int {
	return cmp.Or(strings.Compare(a.RDS, b.RDS), strings.Compare(a.Slot, b.Slot))
}

// everywhere asks some appliances at once. One that does not answer fails the call: what is missing from a list reads as gone. The
// others are heard to the end all the same: a command that is cut off makes its connection doubtful, and others wait for that.
func everywhere[T any](ctx context.Context, appliances map[string]Appliance, names []string, ask question[T]) ([]listed[T], error) {
	lists, faults := make([][]listed[T], len(names)), make([]error, len(names))
	var asked sync.WaitGroup
	for i, name := range names {
		asked.Go(func() { lists[i], faults[i] = ask(ctx, name, appliances[name]) })
	}
	asked.Wait()
	return slices.Concat(lists...), errors.Join(faults...)
}

const tokenPrefix = "after."

// tokenOf is the token for what comes after this one. It is the last one shown and not an index: what comes and goes between two
// pages neither repeats nor hides others.
func tokenOf(last appliance.ID) string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(last.Key()))
}

// paged is a request for a list.
type paged interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

func parsePage(req paged) (page, error) {
	want := page{most: int(req.GetMaxEntries())}
	if want.most < 0 {
		return want, invalid("max_entries is negative")
	}
	token := req.GetStartingToken()
	if token == "" {
		return want, nil
	}
	coded, ok := strings.CutPrefix(token, tokenPrefix)
	key, err := base64.RawURLEncoding.DecodeString(coded)
	rds, slot, whole := strings.Cut(string(key), "/")
	if !ok || err != nil || !whole {
		return want, refuse(codes.Aborted, "starting token %q is not one of this driver: start again without it", token)
	}
	want.after = appliance.ID{RDS: rds, Slot: slot}
	return want, nil
}
