package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func typeName(o object) string { return fmt.Sprintf("%T", o) }

// minimal are the values without which nothing is rendered.
func minimal() []string {
	const rds = "config.rds[0].name=a,config.rds[0].address=10.0.0.1,config.rds[0].user=csi,config.rds[0].nvme.address=10.0.0.1,config.rds[0].pool.path=/a"
	return []string{"--set", rds}
}

// Where the operator of Prometheus is not installed, its kinds would make the installation fail.
func TestMonitoringIsOffByDefault(t *testing.T) {
	objects := render(t, minimal()...)
	if n := len(every[*podMonitor](objects)) + len(every[*prometheusRule](objects)) + len(every[*corev1.Service](objects)); n != 0 {
		t.Errorf("%d objects for monitoring", n)
	}
}

// What finds the pods of a part must find these and no others, and a port that they have.
func TestMonitorsFindThePods(t *testing.T) {
	objects := load(t)
	pods := map[string]corev1.PodTemplateSpec{
		"controller": only[*appsv1.Deployment](t, objects).Spec.Template, "node": only[*appsv1.DaemonSet](t, objects).Spec.Template,
	}
	found := map[string]int{}
	check := func(name string, selector *metav1.LabelSelector, port string) {
		t.Helper()
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		for part, pod := range pods {
			if !s.Matches(labels.Set(pod.Labels)) {
				continue
			}
			found[name]++
			if !hasPort(container(t, pod.Spec, "rds-csi"), port) {
				t.Errorf("%s looks for port %s of the %s", name, port, part)
			}
		}
		if found[name] != 1 {
			t.Errorf("%s finds %d kinds of pods", name, found[name])
		}
	}
	for _, m := range every[*podMonitor](objects) {
		check("PodMonitor "+m.Name, &m.Spec.Selector, m.Spec.PodMetricsEndpoints[0].Port)
	}
	for _, s := range every[*corev1.Service](objects) {
		if s.Spec.Ports[0].TargetPort.Type != intstr.String {
			t.Errorf("%s names no port", s.Name)
		}
		check("Service "+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, s.Spec.Ports[0].TargetPort.StrVal)
	}
	check("Deployment", only[*appsv1.Deployment](t, objects).Spec.Selector, "metrics")
	check("DaemonSet", only[*appsv1.DaemonSet](t, objects).Spec.Selector, "metrics")
	if len(found) != 6 {
		t.Errorf("found %v", found)
	}
}

func hasPort(c corev1.Container, name string) bool {
	for _, p := range c.Ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

// Alerts and dashboard know a node by the label "node": a plugin's metrics get it from its monitor, the controller's have it of their own, which a monitor's
// would rename.
func TestMonitorsTellTheNode(t *testing.T) {
	for _, m := range every[*podMonitor](load(t)) {
		sets := 0
		for _, r := range m.Spec.PodMetricsEndpoints[0].Relabelings {
			if r.TargetLabel == "node" && slices.Equal(r.SourceLabels, []string{"__meta_kubernetes_pod_node_name"}) {
				sets++
			}
		}
		want := 0
		if strings.HasSuffix(m.Name, "-node") {
			want = 1
		}
		if sets != want {
			t.Errorf("PodMonitor %s sets the label node %d times, want %d", m.Name, sets, want)
		}
	}
}
