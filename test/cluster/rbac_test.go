//go:build cluster

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rds-csi/rds-csi/test/cluster/controlplane"
)

// checkRequests is about the whole run: nothing that runs in the controller's pod asked for what the chart's roles do
// not allow, and, when all tests ran, nothing is allowed that nobody asked for. The API server's audit log is asked,
// not the programs: a sidecar may hide that it was refused.
func checkRequests(ctx context.Context) error {
	all, err := plane.Requests()
	if err != nil {
		return err
	}
	faults := []error{refusedRequests(all), forbiddenInLogs()}
	if wanted := flag.Lookup("test.run"); wanted == nil || wanted.Value.String() == "" {
		faults = append(faults, unusedRights(ctx, all))
	}
	return errors.Join(faults...)
}

func refusedRequests(all []controlplane.Request) error {
	times := map[string]int{}
	for _, r := range all {
		if r.Code == 403 {
			times[fmt.Sprintf("%s (%s): %s %s %s/%s", r.User, r.Agent, r.Verb, r.Group, r.Resource, r.Subresource)]++
		}
	}
	if len(times) == 0 {
		return nil
	}
	return fmt.Errorf("the chart's roles lack what was asked for: %v", times)
}

// forbiddenInLogs looks for the word that Kubernetes has for it.
func forbiddenInLogs() error {
	files, err := filepath.Glob(filepath.Join(plane.Logs(), "*-csi*.log"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no logs of the driver and the sidecars: %w", err)
	}
	var faults []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "is forbidden") {
				faults = append(faults, fmt.Errorf("%s: %.300s", filepath.Base(file), line))
				break
			}
		}
	}
	return errors.Join(faults...)
}

// awaitRights waits until the API server grants the account of the pod what its roles say. It hears of new roles and
// bindings by watches, as everybody does: a request made at once may be refused, and one refusal is one too many.
func (i *installation) awaitRights() {
	i.t.Helper()
	ofRelease := metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + i.class}
	everywhere, err := plane.Admin.RbacV1().ClusterRoles().List(i.t.Context(), ofRelease)
	i.must(err)
	here, err := plane.Admin.RbacV1().Roles(i.namespace).List(i.t.Context(), ofRelease)
	i.must(err)
	if len(everywhere.Items) == 0 || len(here.Items) == 0 {
		i.t.Fatal("the chart has no roles")
	}
	for _, role := range everywhere.Items {
		i.awaitGrants("", role.Rules)
	}
	for _, role := range here.Items {
		i.awaitGrants(role.Namespace, role.Rules)
	}
}

func (i *installation) awaitGrants(namespace string, rules []rbacv1.PolicyRule) {
	i.t.Helper()
	for _, rule := range rules {
		resource, sub, _ := strings.Cut(rule.Resources[0], "/")
		asked := authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: resource, Subresource: sub,
			Name: strings.Join(rule.ResourceNames, ""), // none or one
		}
		i.poll("the API server knows the roles", plane.APIServer(), func(ctx context.Context) error {
			answer, err := plane.Admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:" + i.namespace + ":" + i.chart.account, ResourceAttributes: &asked},
			}, metav1.CreateOptions{})
			if err == nil && !answer.Status.Allowed {
				err = fmt.Errorf("%w: %v", errNotGranted, asked)
			}
			return err
		})
	}
}

var errNotGranted = errors.New("not granted")

// part of the pod is who has a role of its own, by the end of the role's name, and its User-Agent.
func parts() map[string]string {
	return map[string]string{
		"controller": "rds-csi", "provisioner": "csi-provisioner", "attacher": "csi-attacher", "resizer": "csi-resizer", "snapshotter": "csi-snapshotter",
	}
}

// unneeded are rights that no test uses although they are needed, with the reason.
func unneeded() map[string]string {
	const repeated = "an event that repeats itself within minutes is a patch of the first"
	return map[string]string{
		"provisioner patch /events": repeated,
		"attacher patch /events":    repeated,
		"resizer patch /events":     repeated,
		"controller patch /events":  repeated,
		"snapshotter patch /events": repeated,

		"provisioner update storage.k8s.io/csistoragecapacities": "when there is more or less room than a minute ago",
	}
}

// unusedRights are what the roles allow and nobody asked for. Reading counts as one right: which of get, list and watch
// a client uses changes with its version.
func unusedRights(ctx context.Context, all []controlplane.Request) error {
	used := map[string]bool{}
	for _, r := range all {
		for part, agent := range parts() {
			if strings.HasPrefix(r.Agent, agent) {
				used[right(part, r.Verb, r.Group, r.Resource, r.Subresource)] = true
			}
		}
	}
	roles, err := plane.Admin.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=rds-csi"})
	if err != nil {
		return err
	}
	capacity, err := plane.Admin.RbacV1().Roles(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=rds-csi"})
	if err != nil {
		return err
	}
	unused := map[string]bool{}
	for _, role := range append(roles.Items, ofProvisioner(capacity.Items)...) {
		part := role.Name[strings.LastIndex(role.Name, "-")+1:]
		if parts()[part] == "" {
			return fmt.Errorf("role %s is nobody's", role.Name)
		}
		for _, allowed := range rights(part, role.Rules) {
			if !used[allowed] && unneeded()[allowed] == "" {
				unused[allowed] = true
			}
		}
	}
	if len(unused) > 0 {
		return fmt.Errorf("the chart's roles allow what nobody asked for in any test: %s", strings.Join(slices.Sorted(maps.Keys(unused)), ", "))
	}
	if len(roles.Items) == 0 {
		return errors.New("no roles found")
	}
	return nil
}

// ofProvisioner are the roles for capacity objects, which are in a namespace, as if they were not; that for Leases is
// everybody's.
func ofProvisioner(roles []rbacv1.Role) (all []rbacv1.ClusterRole) {
	for _, r := range roles {
		if name, ok := strings.CutSuffix(r.Name, "-capacity"); ok {
			all = append(all, rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name + "-provisioner"}, Rules: r.Rules})
		}
	}
	return all
}

func rights(part string, rules []rbacv1.PolicyRule) (all []string) {
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				name, sub, _ := strings.Cut(resource, "/")
				for _, verb := range rule.Verbs {
					all = append(all, right(part, verb, group, name, sub))
				}
			}
		}
	}
	return all
}

func right(part, verb, group, resource, subresource string) string {
	switch verb {
	case "get", "list", "watch":
		verb = "read"
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s %s/%s/%s", part, verb, group, resource, subresource), "/")
}
