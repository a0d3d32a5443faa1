package kube

import (
	"sync/atomic"
	"time"
)

// What is watched, by the names of LastContact.
const (
	sourceAttachments = "volumeattachments"
	sourceVolumes     = "persistentvolumes"
	sourceNodes       = "nodes"
	sourceCSINodes    = "csinodes"
)

// contact is when the API server last said anything on one watch.
type contact struct{ at atomic.Int64 }

func (c *contact) now() time.Time {
	now := time.Now()
	c.at.Store(now.UnixNano())
	return now
}

func newContacts() map[string]*contact {
	return map[string]*contact{sourceAttachments: {}, sourceVolumes: {}, sourceNodes: {}, sourceCSINodes: {}}
}

// LastContact tells for each watch ("volumeattachments", "persistentvolumes",
// "nodes", "csinodes") when the API server last gave a list, an event or a bookmark. It sends
// a bookmark about once a minute when nothing happens. A watch that was not
// listed yet is absent.
func (c *Client) LastContact() map[string]time.Time {
	times := make(map[string]time.Time, len(c.contacts))
	for name, contact := range c.contacts {
		if at := contact.at.Load(); at != 0 {
			times[name] = time.Unix(0, at)
		}
	}
	return times
}
