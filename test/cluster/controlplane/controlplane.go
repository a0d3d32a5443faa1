package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// readyLimit is for each of the programs: ten times what a quiet machine needs.
const readyLimit = 2 * time.Minute

// ControlPlane is a running one.
type ControlPlane struct {
	Programs Programs
	Launcher *Launcher // for what else the test runs; it ends with the control plane
	Front    *Proxy    // the API server for everybody who has no proxy of his own
	Admin    kubernetes.Interface

	dir         string
	credentials credentials
	etcd        string // address of clients
	apiAddress  string
	apiServer   *Process
}

// Start brings a control plane up in a folder, and waits until the API server answers and the controllers run. Close
// ends it.
func Start(ctx context.Context, programs Programs, dir string) (_ *ControlPlane, err error) {
	c := &ControlPlane{Programs: programs, dir: dir}
	for _, folder := range []string{"logs", "pki", "etcd", "kubeconfig"} {
		if err := os.MkdirAll(c.in(folder), 0o750); err != nil {
			return nil, err
		}
	}
	c.Launcher = NewLauncher(c.in("logs"))
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.credentials, err = makeCredentials(c.in("pki")); err != nil {
		return nil, err
	}
	if c.Front, err = NewProxy(ctx, ""); err != nil {
		return nil, err
	}
	if c.Admin, err = kubernetes.NewForConfig(c.Config()); err != nil {
		return nil, err
	}
	apiServer := func(ctx context.Context) error { return c.StartAPIServer(ctx) }
	for _, start := range []func(context.Context) error{c.startEtcd, apiServer, c.startControllerManager, c.startScheduler} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.awaitControllers(ctx)
}

// Close ends everything that was started by the launcher.
func (c *ControlPlane) Close() {
	c.Launcher.Close()
	if c.Front != nil {
		c.Front.Close()
	}
}

func (c *ControlPlane) in(names ...string) string {
	return filepath.Join(append([]string{c.dir}, names...)...)
}

// Logs is the folder of all logs, the API server's audit log included.
func (c *ControlPlane) Logs() string { return c.in("logs") }

// Config is the administrator's way in.
func (c *ControlPlane) Config() *rest.Config {
	return c.credentials.config(c.Front.Address(), c.credentials.byUser[adminUser])
}

// Kubeconfig writes a file for the bearer of a service account's token, at an address that leads to the API server
// (Front's, or that of another Proxy).
func (c *ControlPlane) Kubeconfig(ctx context.Context, namespace, account, address, file string) error {
	hours := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}
	issued, err := c.Admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return c.credentials.writeKubeconfig(file, address, issued.Status.Token)
}

// awaitControllers waits for what the controller manager makes in every namespace: pods need both.
func (c *ControlPlane) awaitControllers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return until(ctx, c.apiServer, func(ctx context.Context) error {
		_, account := c.Admin.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		_, authority := c.Admin.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return errors.Join(account, authority)
	})
}

// MakeNamespace makes a namespace in which pods can be made at once: it waits for its default service account.
func (c *ControlPlane) MakeNamespace(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ns, err := c.Admin.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ns.Name = name
		_, err = c.Admin.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	return until(ctx, c.apiServer, func(ctx context.Context) error {
		_, err := c.Admin.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// healthy asks a program's own word over HTTP or HTTPS. Its certificate is its own making; it is on loopback.
func healthy(url string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", url, answer.Status, body)
		}
		return err
	}
}
