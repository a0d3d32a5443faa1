package kube_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/rds-csi/rds-csi/internal/kube"
)

func kubeSystem() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "6f1c"}}
}

func TestClusterIDAsksUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.must(c.api.Tracker().Add(kubeSystem()))
		failures := 5
		c.api.PrependReactor("get", "namespaces", func(k8stesting.Action) (bool, runtime.Object, error) {
			failures--
			return failures >= 0, nil, errors.New("forbidden, for now")
		})
		id, err := c.client().ClusterID(t.Context())
		if id != "6f1c" || err != nil {
			t.Errorf("ClusterID = %q, %v", id, err)
		}
		if n := c.logs.count("cluster's identity"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
	})
}

func TestClusterIDEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t) // no such namespace
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		id, err := c.client().ClusterID(ctx)
		if id != "" || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not found") {
			t.Errorf("ClusterID = %q, %v; want the deadline, and why", id, err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

func TestNewWithoutACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBERNETES_SERVICE_PORT", "")
	if _, err := kube.New(kube.Config{DriverName: driver}); !errors.Is(err, kube.ErrNoCluster) {
		t.Errorf("New outside of any cluster = %v", err)
	}
	missing := filepath.Join(t.TempDir(), "kubeconfig")
	if _, err := kube.New(kube.Config{DriverName: driver, Kubeconfig: missing}); err == nil || errors.Is(err, kube.ErrNoCluster) {
		t.Errorf("New with a missing kubeconfig = %v: a fault must not pass for no cluster", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := kube.New(kube.Config{DriverName: driver}); err == nil || errors.Is(err, kube.ErrNoCluster) {
		t.Errorf("New in a pod without credentials = %v: a fault must not pass for no cluster", err)
	}
}

// From the kubeconfig to the wire and back.
func TestNewSpeaksHTTP(t *testing.T) {
	var agent, accept string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent, accept = r.UserAgent(), r.Header.Get("Accept")
		if r.URL.Path != "/api/v1/namespaces/kube-system" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":"6f1c"}}`))
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	err := os.WriteFile(config, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":"`+server.URL+`"}}],
		"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.New(kube.Config{DriverName: driver, Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := client.ClusterID(t.Context()); id != "6f1c" || err != nil {
		t.Errorf("ClusterID = %q, %v", id, err)
	}
	if agent != "rds-csi" || !strings.HasPrefix(accept, "application/vnd.kubernetes.protobuf") {
		t.Errorf("asked as %q for %q", agent, accept)
	}
}
