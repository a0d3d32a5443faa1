package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Compact throws away every revision but the newest, as etcd does every few minutes: whoever wants to go on from an
// older one is told 410 Gone, where the API server has no memory of past events (--watch-cache-sizes). It goes through
// etcd's own HTTP gateway.
func (c *ControlPlane) Compact(ctx context.Context) error {
	var at struct{ Header struct{ Revision string } }
	if err := c.askEtcd(ctx, "/v3/kv/range", map[string]any{"key": []byte("/registry")}, &at); err != nil {
		return err
	}
	return c.askEtcd(ctx, "/v3/kv/compaction", map[string]any{"revision": at.Header.Revision, "physical": true}, &struct{}{})
}

func (c *ControlPlane) askEtcd(ctx context.Context, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.etcd+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s", path, reply.Status)
	}
	return json.NewDecoder(reply.Body).Decode(answer)
}
