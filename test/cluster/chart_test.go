//go:build cluster

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/test/helm"
)

// chart is what an administrator installs: the chart as the real helm renders it. Nobody runs its pods here, so the
// test starts the containers' programs with the containers' arguments, with the service account of the pod.
type chart struct {
	account    string
	config     string // the controller's configuration file
	objects    []byte // YAML of everything but the pods
	containers map[string]corev1.Container
}

// render renders the chart for one RDS, described by a configuration as rds-sim writes it.
func render(t *testing.T, release, namespace, driver, class, simulated, valuesFile string) chart {
	t.Helper()
	config := map[string]any{}
	if err := yaml.Unmarshal([]byte(simulated), &config); err != nil {
		t.Fatal(err)
	}
	delete(config, "clusterID") // the driver is to ask Kubernetes for it
	config["driverName"] = driver
	values, err := yaml.Marshal(map[string]any{
		"config": config, "logLevel": "debug",
		"storageClasses":        []map[string]any{{"name": class, "parameters": map[string]any{"csi.storage.k8s.io/fstype": "ext4"}}},
		"volumeSnapshotClasses": []map[string]any{{"name": class}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(valuesFile, values, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := helm.Run(t.Context(), "template", release, ".", "--namespace", namespace, "--values", valuesFile)
	if err != nil {
		t.Fatal(err)
	}
	c := chart{containers: map[string]corev1.Container{}}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if err := c.take(document); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
	}
	if c.account == "" || c.config == "" || len(c.containers) == 0 {
		t.Fatalf("the chart has no Deployment, or no configuration:\n%s", text)
	}
	return c
}

// take sorts one document.
func (c *chart) take(document []byte) error {
	var head struct {
		Kind     string
		Metadata struct{ Name string }
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	switch head.Kind {
	case "", "DaemonSet", "PodMonitor", "PrometheusRule", "PodDisruptionBudget":
		return nil // pods, and what Kubernetes itself does not know
	case "Deployment":
		return c.takeDeployment(document)
	case "ConfigMap":
		var m corev1.ConfigMap
		if err := yaml.Unmarshal(document, &m); err != nil {
			return err
		}
		if strings.Contains(m.Data["config.yaml"], "rds:") { // the node's has none
			c.config = m.Data["config.yaml"]
		}
	}
	c.objects = append(append(c.objects, document...), "\n---\n"...)
	return nil
}

func (c *chart) takeDeployment(document []byte) error {
	var d appsv1.Deployment
	if err := yaml.Unmarshal(document, &d); err != nil {
		return err
	}
	c.account = d.Spec.Template.Spec.ServiceAccountName
	for _, container := range d.Spec.Template.Spec.Containers {
		c.containers[container.Name] = container
	}
	return nil
}

// arguments of a container, with what differs outside a pod put in the place of what the chart says, or added.
func (c *chart) arguments(t *testing.T, container string, instead ...string) []string {
	t.Helper()
	from, ok := c.containers[container]
	if !ok {
		t.Fatalf("the chart has no container %s", container)
	}
	name := func(argument string) string { return strings.SplitN(argument, "=", 2)[0] }
	arguments := slices.DeleteFunc(slices.Clone(from.Args), func(argument string) bool {
		return slices.ContainsFunc(instead, func(other string) bool { return name(other) == name(argument) })
	})
	return append(arguments, instead...)
}

// short is a name that a Kubernetes object, a CSI driver and a file may have.
func short(test string) string {
	name := strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-").Replace(test))
	return strings.Trim(fmt.Sprintf("%.28s", cmp.Or(name, "test")), "-")
}
