//go:build cluster

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
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
	nodeConfig string // the nodes'
	objects    []byte // YAML of everything but the pods
	deployment []byte // the controller's
	containers map[string]corev1.Container
}

// values are the chart's.
type values map[string]any

// usual is what most tests want: one RDS, a class, and a class of snapshots, all of the installation's name.
func (i *installation) usual() values {
	return values{
		"config":   map[string]any{"driverName": i.driver, "rds": []any{i.startSimulator("rds")}}, // no clusterID: the driver is to ask Kubernetes for it
		"logLevel": "debug", "controller": map[string]any{"replicas": 1},
		"storageClasses":        []any{storageClass(i.class, nil)},
		"volumeSnapshotClasses": []any{map[string]any{"name": i.class}},
	}
}

func storageClass(name string, parameters map[string]any) map[string]any {
	all := map[string]any{"csi.storage.k8s.io/fstype": "ext4"}
	maps.Copy(all, parameters)
	return map[string]any{"name": name, "parameters": all}
}

// add adds to a list of the values.
func (v values) add(list string, one any) { v[list] = append(v[list].([]any), one) }

// render renders the chart.
func render(t *testing.T, release, namespace string, v values, valuesFile string) chart {
	t.Helper()
	file, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(valuesFile, file, 0o600); err != nil {
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
		switch text := m.Data["config.yaml"]; {
		case strings.HasSuffix(m.Name, "-controller"):
			c.config = text
		case strings.HasSuffix(m.Name, "-node"):
			c.nodeConfig = text
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
	c.deployment = document
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
