package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sample is one series at one time.
type Sample struct {
	Labels map[string]string // __name__ among them, where the query left it
	Value  float64
	Time   time.Time
}

// String is the series as Prometheus writes it, and its value.
func (s Sample) String() string {
	pairs := make([]string, 0, len(s.Labels))
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		if name != "__name__" {
			pairs = append(pairs, fmt.Sprintf("%s=%q", name, s.Labels[name]))
		}
	}
	return fmt.Sprintf("%s{%s} %v", s.Labels["__name__"], strings.Join(pairs, ","), s.Value)
}

// Query evaluates an expression that gives a vector, now.
func (s *Server) Query(ctx context.Context, expr string) ([]Sample, error) {
	var answer struct {
		Result []struct {
			Metric map[string]string
			Value  point
		}
	}
	if err := s.ask(ctx, "/api/v1/query", url.Values{"query": {expr}}, &answer); err != nil {
		return nil, err
	}
	samples := make([]Sample, 0, len(answer.Result))
	for _, r := range answer.Result {
		samples = append(samples, Sample{r.Metric, r.Value.value, r.Value.at})
	}
	return samples, nil
}

// Samples gives every sample that was scraped of the series that a selector picks, within a time before now, in order: what no step of a
// range query can leave out.
func (s *Server) Samples(ctx context.Context, selector string, within time.Duration) ([]Sample, error) {
	var answer struct {
		Result []struct {
			Metric map[string]string
			Values []point
		}
	}
	expr := fmt.Sprintf("%s[%dms]", selector, within.Milliseconds())
	if err := s.ask(ctx, "/api/v1/query", url.Values{"query": {expr}}, &answer); err != nil {
		return nil, err
	}
	var samples []Sample
	for _, r := range answer.Result {
		for _, v := range r.Values {
			samples = append(samples, Sample{r.Metric, v.value, v.at})
		}
	}
	slices.SortStableFunc(samples, func(a, b Sample) int { return a.Time.Compare(b.Time) })
	return samples, nil
}

// Await asks again and again until the answer is as wanted, or ctx ends. There is no event to wait for.
func (s *Server) Await(ctx context.Context, expr string, wanted func([]Sample) bool) ([]Sample, error) {
	for {
		samples, err := s.Query(ctx, expr)
		if err == nil && wanted(samples) {
			return samples, nil
		}
		if pause(ctx) != nil {
			return samples, fmt.Errorf("%s is %v (%v): %w", expr, samples, err, context.Cause(ctx)) //nolint:errorlint // what the last question ended with is told, not matched
		}
	}
}

// Alert is a pending or firing alert.
type Alert struct {
	State               string
	Labels, Annotations map[string]string
}

// Rule is an alerting rule as Prometheus sees it.
type Rule struct {
	Name, Health, LastError string
	Alerts                  []Alert
}

// Rules gives all rules, with their alerts.
func (s *Server) Rules(ctx context.Context) ([]Rule, error) {
	var answer struct{ Groups []struct{ Rules []Rule } }
	if err := s.ask(ctx, "/api/v1/rules", nil, &answer); err != nil {
		return nil, err
	}
	var rules []Rule
	for _, g := range answer.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules, nil
}

// point is [time, "value"] in the API.
type point struct {
	at    time.Time
	value float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *point) UnmarshalJSON(text []byte) error {
	var at float64
	var value string
	if err := json.Unmarshal(text, &[]any{&at, &value}); err != nil {
		return err
	}
	p.at = time.UnixMilli(int64(at * 1000))
	var err error
	p.value, err = strconv.ParseFloat(value, 64)
	return err
}

// ask is one question to the API.
func (s *Server) ask(ctx context.Context, path string, query url.Values, into any) error {
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := s.get(ctx, path+"?"+query.Encode(), &answer); err != nil {
		return err
	}
	return json.Unmarshal(answer.Data, into)
}

func (s *Server) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was read to its end
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("prometheus answers %s to %s: %s", response.Status, path, text)
	case into == nil:
		return nil
	}
	return json.Unmarshal(text, into)
}
