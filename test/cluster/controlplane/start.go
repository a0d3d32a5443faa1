package controlplane

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// auditPolicy keeps every request of a service account outside kube-system, and nothing of its contents.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
  - {level: Metadata, userGroups: ["system:serviceaccounts"]}
  - {level: None}
`

// launch starts a program of the control plane and waits for its own word that it is healthy.
func (c *ControlPlane) launch(ctx context.Context, name string, health func(context.Context) error, args ...string) (*Process, error) {
	p, err := c.Launcher.Start(name, c.Programs.Path(name), args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := until(ctx, p, health); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (c *ControlPlane) startEtcd(ctx context.Context) error {
	clients, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	peers, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	c.etcd = clients
	_, err = c.launch(ctx, "etcd", healthy("http://"+clients+"/health"),
		"--data-dir", c.in("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+clients, "--advertise-client-urls", "http://"+clients,
		"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers, "--initial-cluster", "default=http://"+peers)
	return err
}

// StartAPIServer starts it, again if need be: on a port that the last one did not have, since that one may still be
// closing its connections. The flags are beside the usual ones, this time.
func (c *ControlPlane) StartAPIServer(ctx context.Context, flags ...string) error {
	address, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	policy := c.in("pki", "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	flags = append([]string{
		"--etcd-servers", "http://" + c.etcd, "--bind-address", host, "--secure-port", port, "--advertise-address", host,
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24",
		"--tls-cert-file", c.credentials.serving, "--tls-private-key-file", c.credentials.servingKey, "--cert-dir", c.in("pki"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.credentials.accountKey, "--service-account-signing-key-file", c.credentials.accountKey,
		"--authorization-mode", "Node,RBAC", "--token-auth-file", c.credentials.tokens, "--allow-privileged=true", "--profiling=false",
		"--audit-policy-file", policy, "--audit-log-path", c.AuditLog(),
	}, flags...)
	if c.apiServer, err = c.launch(ctx, "kube-apiserver", healthy("https://"+address+"/readyz"), flags...); err != nil {
		return err
	}
	c.apiAddress = address
	c.Front.Target(address)
	return nil
}

// StopAPIServer ends it; everybody's connections break.
func (c *ControlPlane) StopAPIServer() { c.apiServer.Stop() }

// APIServer is the running one, to be paused.
func (c *ControlPlane) APIServer() *Process { return c.apiServer }

// APIAddress is the API server itself, for a proxy of one's own. It changes with every start.
func (c *ControlPlane) APIAddress() string { return c.apiAddress }

// AuditLog is the file with the requests of service accounts.
func (c *ControlPlane) AuditLog() string { return filepath.Join(c.Logs(), "audit.log") }

func (c *ControlPlane) startControllerManager(ctx context.Context) error {
	address, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	file, err := c.userKubeconfig(managerUser)
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(address)
	_, err = c.launch(ctx, "kube-controller-manager", healthy("https://"+address+"/healthz"),
		"--kubeconfig", file, "--bind-address", host, "--secure-port", port, "--cert-dir", c.in("pki", "manager"),
		"--authentication-kubeconfig", file, "--authorization-kubeconfig", file,
		"--leader-elect=false", "--use-service-account-credentials=true",
		"--service-account-private-key-file", c.credentials.accountKey, "--root-ca-file", c.credentials.ca,
		// No kubelet sends heartbeats here: a node's conditions stay as the test wrote them.
		"--node-monitor-grace-period", (24 * time.Hour).String(),
		"--attach-detach-reconcile-sync-period", "10s", "--pvclaimbinder-sync-period", "5s", "--v", "2")
	return err
}

func (c *ControlPlane) startScheduler(ctx context.Context) error {
	address, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	file, err := c.userKubeconfig(schedulerUser)
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(address)
	_, err = c.launch(ctx, "kube-scheduler", healthy("https://"+address+"/healthz"),
		"--kubeconfig", file, "--bind-address", host, "--secure-port", port, "--cert-dir", c.in("pki", "scheduler"),
		"--authentication-kubeconfig", file, "--authorization-kubeconfig", file, "--leader-elect=false", "--v", "2")
	return err
}

func (c *ControlPlane) userKubeconfig(user string) (string, error) {
	file := c.in("kubeconfig", user)
	if err := c.credentials.writeKubeconfig(file, c.Front.Address(), c.credentials.byUser[user]); err != nil {
		return "", fmt.Errorf("kubeconfig of %s: %w", user, err)
	}
	return file, nil
}
