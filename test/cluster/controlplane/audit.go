package controlplane

import (
	"bufio"
	"encoding/json"
	"os"
	"time"
)

// Request is one that a service account made, as the API server remembers it.
type Request struct {
	User, Agent, Verb                 string
	Group, Resource, Subresource, URI string
	Namespace, Name                   string
	Code                              int
	Reason                            string // why the authorizer decided so
	Received                          time.Time
}

// event is what is read of a line of the audit log.
type event struct {
	Verb, UserAgent, RequestURI string
	User                        struct{ Username string }
	ObjectRef                   struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	ResponseStatus              struct{ Code int }
	RequestReceivedTimestamp    time.Time
	Annotations                 map[string]string
}

// Requests are all that service accounts (but for Kubernetes' own) have made so far and that have been answered. A
// watch is answered when it ends.
func (c *ControlPlane) Requests() ([]Request, error) {
	f, err := os.Open(c.AuditLog())
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all []Request
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // the last line, half written
		}
		all = append(all, Request{
			User: e.User.Username, Agent: e.UserAgent, Verb: e.Verb,
			Group: e.ObjectRef.APIGroup, Resource: e.ObjectRef.Resource, Subresource: e.ObjectRef.Subresource, URI: e.RequestURI,
			Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name,
			Code: e.ResponseStatus.Code, Reason: e.Annotations["authorization.k8s.io/reason"], Received: e.RequestReceivedTimestamp,
		})
	}
	return all, lines.Err()
}
