// Package controlplane runs a real Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager
// and kube-scheduler, built from their Go modules (../tools) and kept in the user's cache. It needs no root, no
// container and no image; everything listens on loopback.
//
// Clients do not speak to the API server directly but through a Proxy, which is the way to make it slow, to cut
// watches, and to restart it behind an address that stays. RBAC and the Node authorizer are on, and every request of a
// service account is in the audit log: what the project's manifests allow is what the test gets.
package controlplane
