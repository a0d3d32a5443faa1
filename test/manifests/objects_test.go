package manifests

import (
	"bytes"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/test/helm"
)

// object is what every kind of the API is.
type object interface{ metav1.Object }

// The kinds of the Prometheus operator, as far as the chart uses them.
type (
	podMonitor struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`

		Spec struct {
			Selector            metav1.LabelSelector `json:"selector"`
			PodMetricsEndpoints []struct {
				Port        string `json:"port"`
				Interval    string `json:"interval"`
				Relabelings []struct {
					SourceLabels []string `json:"sourceLabels"`
					TargetLabel  string   `json:"targetLabel"`
				} `json:"relabelings"`
			} `json:"podMetricsEndpoints"`
		} `json:"spec"`
	}
	prometheusRule struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`

		Spec rules `json:"spec"`
	}
)

// volumeSnapshotClass is external-snapshotter's, as far as the chart uses it.
type volumeSnapshotClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Driver         string `json:"driver"`
	DeletionPolicy string `json:"deletionPolicy"`
}

// kinds is every kind that the chart may use, with the type that the API server decodes it into.
func kinds() map[string]func() object {
	return map[string]func() object{
		"CSIDriver":           func() object { return new(storagev1.CSIDriver) },
		"StorageClass":        func() object { return new(storagev1.StorageClass) },
		"VolumeSnapshotClass": func() object { return new(volumeSnapshotClass) },
		"ServiceAccount":      func() object { return new(corev1.ServiceAccount) },
		"ConfigMap":           func() object { return new(corev1.ConfigMap) },
		"Service":             func() object { return new(corev1.Service) },
		"ClusterRole":         func() object { return new(rbacv1.ClusterRole) },
		"ClusterRoleBinding":  func() object { return new(rbacv1.ClusterRoleBinding) },
		"Role":                func() object { return new(rbacv1.Role) },
		"RoleBinding":         func() object { return new(rbacv1.RoleBinding) },
		"Deployment":          func() object { return new(appsv1.Deployment) },
		"DaemonSet":           func() object { return new(appsv1.DaemonSet) },
		"PodDisruptionBudget": func() object { return new(policyv1.PodDisruptionBudget) },
		"PrometheusRule":      func() object { return new(prometheusRule) },
		"PodMonitor":          func() object { return new(podMonitor) },
	}
}

// load renders the chart with the values of its tests, every switch on, and what the arguments change of them.
func load(t *testing.T, args ...string) []object {
	t.Helper()
	return render(t, append([]string{"--values", helm.Values}, args...)...)
}

// render renders the chart. Fields that the API does not have are refused.
func render(t *testing.T, args ...string) []object {
	t.Helper()
	text, err := helm.Template(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	var objects []object
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if o := decode(t, doc); o != nil {
			objects = append(objects, o)
		}
	}
	if len(objects) == 0 {
		t.Fatal("helm renders nothing")
	}
	return objects
}

func decode(t *testing.T, doc []byte) object {
	t.Helper()
	var head struct{ Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		t.Fatalf("%v in:\n%s", err, doc)
	}
	if head.Kind == "" { // only comments
		return nil
	}
	newObject, ok := kinds()[head.Kind]
	if !ok {
		t.Fatalf("kind %q is not expected here", head.Kind)
	}
	o := newObject()
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		t.Fatalf("%s: %v in:\n%s", head.Kind, err, doc)
	}
	return o
}

// every gives the objects of one type.
func every[T object](objects []object) []T {
	var found []T
	for _, o := range objects {
		if v, ok := o.(T); ok {
			found = append(found, v)
		}
	}
	return found
}

// only gives the one object of a type.
func only[T object](t *testing.T, objects []object) T {
	t.Helper()
	found := every[T](objects)
	if len(found) != 1 {
		t.Fatalf("%d objects of %T, want 1", len(found), *new(T))
	}
	return found[0]
}

// named gives the object of a type and name.
func named[T object](t *testing.T, objects []object, name string) T {
	t.Helper()
	for _, o := range every[T](objects) {
		if o.GetName() == name {
			return o
		}
	}
	t.Fatalf("no %T is called %s", *new(T), name)
	return *new(T)
}
