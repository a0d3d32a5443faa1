package manifests

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/test/helm"
	"github.com/rds-csi/rds-csi/test/repo"
)

func TestChartLints(t *testing.T) {
	for name, args := range map[string][]string{"as it comes": nil, "with every switch on": {"--values", helm.Values}} {
		t.Run(name, func(t *testing.T) {
			if _, err := helm.Run(t.Context(), append([]string{"lint", "--strict", "."}, args...)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// A value that nobody reads is a mistake that shows months later.
func TestWrongValuesAreRefused(t *testing.T) {
	for set, says := range map[string]string{
		"replicas=2":                         "'replicas' not allowed",
		"controller.replica=2":               "'replica' not allowed",
		"config.rds[0].host=10.0.0.1":        "'host' not allowed",
		"config.reconcile.intervall=1m":      "'intervall' not allowed",
		"metrics.podMonitor.enabled=perhaps": "want boolean",
		"node.kubeletDir=/var/lib/kubelet/":  "does not match pattern",
		"config.rds=null":                    "config.rds names no RDS",
		"config.rds[1].nvme.address=":        "/config/rds/1/nvme/address",
		"config.metrics.volumeSeries=101":    "/config/metrics/volumeSeries", // as the driver refuses it
	} {
		t.Run(set, func(t *testing.T) {
			_, err := helm.Template(t.Context(), "--values", helm.Values, "--set", set)
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("helm says %v, want %q", err, says)
			}
		})
	}
}

// schema is one level of values.schema.json.
type schema struct {
	Type                 any
	AdditionalProperties any
	Properties           map[string]*schema
	Items                *schema
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	dir, err := helm.Chart()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := new(schema)
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The values below config are the configuration file: a key that one of the two does not know is missing in the other.
func TestSchemaKnowsTheConfiguration(t *testing.T) {
	agree(t, "config", readSchema(t).Properties["config"], reflect.TypeFor[config.Config]())
}

func agree(t *testing.T, path string, s *schema, typ reflect.Type) {
	t.Helper()
	if typ.Kind() == reflect.Slice {
		s, typ = s.Items, typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[config.Duration]() {
		return
	}
	fields := map[string]reflect.Type{}
	for f := range typ.Fields() {
		fields[f.Tag.Get("json")] = f.Type
	}
	for key := range fields {
		if s.Properties[key] == nil {
			t.Errorf("values.schema.json does not know %s.%s", path, key)
			continue
		}
		agree(t, path+"."+key, s.Properties[key], fields[key])
	}
	for key := range s.Properties {
		if fields[key] == nil {
			t.Errorf("the driver does not know %s.%s of values.schema.json", path, key)
		}
	}
	if s.AdditionalProperties != false {
		t.Errorf("values.schema.json lets unknown keys pass in %s", path)
	}
}

// Two releases, say for two kinds of RDS, must not share an object.
func TestReleasesDoNotCollide(t *testing.T) {
	names := func(release string) []string {
		text, err := helm.Run(t.Context(), "template", release, ".", "--values", helm.Values, "--set", "config.driverName="+release+".example.org,storageClasses=null,volumeSnapshotClasses=null")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "  name: "); ok { // of metadata, and of a roleRef
				found[strings.TrimSpace(name)] = true
			}
		}
		return slices.Sorted(maps.Keys(found))
	}
	one, other := names("one"), names("two-rds-csi")
	if len(one) < 8 || len(one) != len(other) {
		t.Errorf("%d and %d names", len(one), len(other))
	}
	for _, name := range one {
		if slices.Contains(other, name) {
			t.Errorf("both releases have %s", name)
		}
	}
}

// The sidecars that the chart installs are those that the tests on a real control plane run: newer ones are tried there first.
func TestSidecarsAreThoseTested(t *testing.T) {
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile(filepath.Join(root, "test/cluster/tools/go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	images := regexp.MustCompile(`sig-storage/csi-([a-z]+):(v(\d+)\.\S+)`)
	values, err := os.ReadFile(filepath.Join(root, "charts/rds-csi/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := images.FindAllSubmatch(values, -1)
	for _, image := range found {
		if line := fmt.Sprintf("\tgithub.com/kubernetes-csi/external-%s/v%s %s\n", image[1], image[3], image[2]); !strings.Contains(string(tested), line) {
			t.Errorf("%s is not what test/cluster/tools/go.mod has", image[0])
		}
	}
	if len(found) != 4 {
		t.Errorf("%d sidecars, want provisioner, attacher, resizer and snapshotter", len(found))
	}
}
