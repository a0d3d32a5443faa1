//go:build cluster

package main

import (
	"fmt"
	"strings"
)

// checkRequests fails the run when anything that runs in the controller's pod asked for what its role does not allow.
// The API server's audit log is asked, not the programs': a sidecar may hide that it was refused.
func checkRequests() error {
	all, err := plane.Requests()
	if err != nil {
		return err
	}
	refused := map[string]int{}
	for _, r := range all {
		if r.Code == 403 {
			refused[fmt.Sprintf("%s (%s): %s %s %s/%s", r.User, r.Agent, r.Verb, r.Group, r.Resource, r.Subresource)]++
		}
	}
	if len(refused) == 0 {
		return nil
	}
	var text strings.Builder
	for what, times := range refused {
		fmt.Fprintf(&text, "\n%d times %s", times, what)
	}
	return fmt.Errorf("the chart's roles lack what was asked for:%s", text.String())
}
