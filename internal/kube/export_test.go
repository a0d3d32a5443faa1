package kube

import "context"

// NewRecorderFor is NewRecorder with claims that a test made up.
func (c *Client) NewRecorderFor(ctx context.Context, known claims) *Recorder {
	r := c.newRecorder("rds-csi", "host-0", known)
	go r.run(ctx)
	return r
}
