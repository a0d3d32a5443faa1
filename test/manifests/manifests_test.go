package manifests

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/internal/config"
)

const dir = "../../deploy/kubernetes"

// kinds is every kind that the manifests may use, with the type that the API server decodes it into.
func kinds() map[string]func() any {
	return map[string]func() any{
		"CSIDriver":          func() any { return new(storagev1.CSIDriver) },
		"StorageClass":       func() any { return new(storagev1.StorageClass) },
		"Namespace":          func() any { return new(corev1.Namespace) },
		"ServiceAccount":     func() any { return new(corev1.ServiceAccount) },
		"ConfigMap":          func() any { return new(corev1.ConfigMap) },
		"ClusterRole":        func() any { return new(rbacv1.ClusterRole) },
		"ClusterRoleBinding": func() any { return new(rbacv1.ClusterRoleBinding) },
		"Role":               func() any { return new(rbacv1.Role) },
		"RoleBinding":        func() any { return new(rbacv1.RoleBinding) },
		"Deployment":         func() any { return new(appsv1.Deployment) },
		"DaemonSet":          func() any { return new(appsv1.DaemonSet) },
	}
}

// load decodes every object of every manifest, refusing fields that the API does not have.
func load(t *testing.T) []any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", dir, err)
	}
	var objects []any
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
			if o := decode(t, file, doc); o != nil {
				objects = append(objects, o)
			}
		}
	}
	return objects
}

func decode(t *testing.T, file string, doc []byte) any {
	t.Helper()
	var head struct{ Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if head.Kind == "" { // only comments
		return nil
	}
	newObject, ok := kinds()[head.Kind]
	if !ok {
		t.Fatalf("%s: kind %q is not expected here", file, head.Kind)
	}
	o := newObject()
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		t.Fatalf("%s: %s: %v", file, head.Kind, err)
	}
	return o
}

func only[T any](t *testing.T, objects []any) T {
	t.Helper()
	var found []T
	for _, o := range objects {
		if v, ok := o.(T); ok {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of %T, want 1", len(found), *new(T))
	}
	return found[0]
}

// Without attachRequired there is no VolumeAttachment, and RWO protects nobody (democratic-csi#307).
func TestAttachIsRequired(t *testing.T) {
	driver := only[*storagev1.CSIDriver](t, load(t))
	if driver.Spec.AttachRequired == nil || !*driver.Spec.AttachRequired {
		t.Error("CSIDriver must say attachRequired: true")
	}
	if driver.Name != config.DefaultDriverName {
		t.Errorf("CSIDriver is %s, the driver's default name is %s", driver.Name, config.DefaultDriverName)
	}
	// A CSIDriver that promises capacity objects which nobody publishes makes no claim schedulable (B20).
	if driver.Spec.StorageCapacity != nil && *driver.Spec.StorageCapacity {
		t.Error("storageCapacity is on, but the provisioner is not told to publish capacity")
	}
}

// A missing attacher once meant that nothing was ever published.
func TestControllerHasItsSidecars(t *testing.T) {
	pod := only[*appsv1.Deployment](t, load(t)).Spec.Template.Spec
	for _, name := range []string{"rds-csi", "csi-provisioner", "csi-attacher"} {
		if !slices.ContainsFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == name }) {
			t.Errorf("the controller has no container %s", name)
		}
	}
}

// The key of the RDS must not lie on every node.
func TestNodeHasNoSecret(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, load(t)).Spec.Template.Spec
	for _, v := range pod.Volumes {
		if v.Secret != nil {
			t.Errorf("the node plugin mounts secret %s", v.Secret.SecretName)
		}
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the node plugin gets a service account token that it never uses")
	}
}

// What each part does at the API server; without it the ledger stays unknown for ever, nothing is provisioned, or nothing attaches.
func TestControllerMayDoItsWork(t *testing.T) {
	role := only[*rbacv1.ClusterRole](t, load(t))
	for resource, verbs := range map[string][]string{
		"volumeattachments":        {"get", "list", "watch", "patch"},
		"volumeattachments/status": {"patch"},
		"persistentvolumes":        {"get", "list", "watch", "create", "patch", "delete"},
		"persistentvolumeclaims":   {"get", "list", "watch", "update"},
		"storageclasses":           {"get", "list", "watch"},
		"csinodes":                 {"get", "list", "watch"},
		"nodes":                    {"get", "list", "watch"},
		"events":                   {"list", "watch", "create", "update", "patch"},
	} {
		for _, verb := range verbs {
			if !allows(role.Rules, resource, verb) {
				t.Errorf("the controller may not %s %s", verb, resource)
			}
		}
	}
	leases := only[*rbacv1.Role](t, load(t))
	for _, verb := range []string{"get", "create", "update", "patch"} {
		if !allows(leases.Rules, "leases", verb) {
			t.Errorf("the sidecars may not %s leases: they never become leaders", verb)
		}
	}
}

// The node plugin drains for 25 s and waits 20 s for a mkfs; killed before that it leaves a volume half formatted.
func TestNodeHasTimeToEnd(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, load(t)).Spec.Template.Spec
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || *grace < 50 {
		t.Errorf("terminationGracePeriodSeconds is %v, the plugin needs up to 45", grace)
	}
}

// kubectl applies a directory in the order of its names.
func TestNamespaceComesFirst(t *testing.T) {
	if _, ok := load(t)[0].(*corev1.Namespace); !ok {
		t.Error("the first object applied is not the namespace")
	}
}

func allows(rules []rbacv1.PolicyRule, resource, verb string) bool {
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
		return slices.Contains(r.Resources, resource) && slices.Contains(r.Verbs, verb) && len(r.ResourceNames) == 0
	})
}

func TestExampleConfigurationIsAccepted(t *testing.T) {
	text := only[*corev1.ConfigMap](t, load(t)).Data["config.yaml"]
	for _, role := range []config.Role{config.Controller, config.Node} {
		if _, err := config.Parse([]byte(text), role); err != nil {
			t.Errorf("role %d: %v", role, err)
		}
	}
	if strings.Contains(text, "PRIVATE KEY") {
		t.Error("key material in a manifest")
	}
}

// B27: the existing driver has a private key in its repository. Tests make theirs.
func TestNoKeyInTheRepository_B27(t *testing.T) {
	mark := []byte("PRIVATE KEY" + "-----")
	read := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".cache", "bin"}, d.Name()):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		read++
		if bytes.Contains(data, mark) {
			t.Errorf("%s holds a private key", path)
		}
		return err
	})
	if err != nil || read < 100 {
		t.Errorf("read %d files: %v", read, err)
	}
}
