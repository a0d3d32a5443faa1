package manifests

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/rds-csi/rds-csi/internal/config"
)

// Without attachRequired there is no VolumeAttachment, and RWO protects nobody (democratic-csi#307).
func TestAttachIsRequired(t *testing.T) {
	driver := only[*storagev1.CSIDriver](t, load(t))
	if driver.Spec.AttachRequired == nil || !*driver.Spec.AttachRequired {
		t.Error("CSIDriver must say attachRequired: true")
	}
	if driver.Name != config.DefaultDriverName {
		t.Errorf("CSIDriver is %s, the driver's default name is %s", driver.Name, config.DefaultDriverName)
	}
	for _, class := range every[*storagev1.StorageClass](load(t)) {
		if class.Provisioner != driver.Name {
			t.Errorf("StorageClass %s is of %s", class.Name, class.Provisioner)
		}
		if class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
			t.Errorf("StorageClass %s lets no claim grow", class.Name)
		}
	}
}

// A CSIDriver that promises capacity objects which nobody publishes makes no claim schedulable (B20). Both come with topology,
// and so does what the provisioner has to read for it.
func TestStorageCapacityIsPromisedAndPublished_B20(t *testing.T) {
	for _, more := range [][]string{nil, {"--set", "config.topology=null"}} {
		objects, want := load(t, more...), more == nil
		spec := only[*storagev1.CSIDriver](t, objects).Spec
		if got := spec.StorageCapacity != nil && *spec.StorageCapacity; got != want {
			t.Errorf("%v: storageCapacity is %t", more, got)
		}
		provisioner := container(t, only[*appsv1.Deployment](t, objects).Spec.Template.Spec, "csi-provisioner")
		if got := slices.Contains(provisioner.Args, "--enable-capacity"); got != want {
			t.Errorf("%v: the provisioner's arguments are %q", more, provisioner.Args)
		}
		named := func(name string) bool {
			return slices.ContainsFunc(provisioner.Env, func(v corev1.EnvVar) bool { return v.Name == name })
		}
		if got := named("NAMESPACE") && named("POD_NAME"); got != want {
			t.Errorf("%v: the provisioner's environment is %v", more, provisioner.Env)
		}
		var rules []rbacv1.PolicyRule
		for _, role := range every[*rbacv1.ClusterRole](objects) {
			if strings.HasSuffix(role.Name, "-provisioner") {
				rules = append(rules, role.Rules...)
			}
		}
		for _, role := range every[*rbacv1.Role](objects) {
			rules = append(rules, role.Rules...)
		}
		for _, resource := range []string{"csinodes", "csistoragecapacities", "pods", "replicasets"} {
			if got := slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, resource) }); got != want {
				t.Errorf("%v: the provisioner may read %s: %t", more, resource, got)
			}
		}
		for _, c := range every[*corev1.ConfigMap](objects) {
			if text, ok := c.Data["config.yaml"]; ok && want && !strings.Contains(text, "rack-b-*") {
				t.Errorf("ConfigMap %s lacks the topology: controller and nodes would tell two stories", c.Name)
			}
		}
	}
}

// The name of the driver is in five places that must be the same, or the kubelet finds no plugin.
func TestDriverNameIsOne(t *testing.T) {
	const name = "other.example.org"
	objects := load(t, "--set", "config.driverName="+name)
	if got := only[*storagev1.CSIDriver](t, objects).Name; got != name {
		t.Errorf("CSIDriver is %s", got)
	}
	for _, c := range every[*storagev1.StorageClass](objects) {
		if c.Provisioner != name {
			t.Errorf("StorageClass %s is of %s", c.Name, c.Provisioner)
		}
	}
	for _, c := range every[*corev1.ConfigMap](objects) {
		if text, ok := c.Data["config.yaml"]; ok && !strings.Contains(text, "driverName: "+name+"\n") {
			t.Errorf("ConfigMap %s does not say %s", c.Name, name)
		}
	}
	node := only[*appsv1.DaemonSet](t, objects).Spec.Template.Spec
	registrar := container(t, node, "node-driver-registrar")
	if want := "--kubelet-registration-path=/var/lib/kubelet/plugins/" + name + "/csi.sock"; !slices.Contains(registrar.Args, want) {
		t.Errorf("the registrar has %q, not %s", registrar.Args, want)
	}
	if !slices.ContainsFunc(node.Volumes, func(v corev1.Volume) bool {
		return v.Name == "socket" && v.HostPath.Path == "/var/lib/kubelet/plugins/"+name
	}) {
		t.Error("the socket is in another folder than the registrar says")
	}
}

func container(t *testing.T, pod corev1.PodSpec, name string) corev1.Container {
	t.Helper()
	for _, c := range pod.Containers {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no container %s", name)
	return corev1.Container{}
}

// A missing attacher once meant that nothing was ever published.
func TestControllerHasItsSidecars(t *testing.T) {
	pod := only[*appsv1.Deployment](t, load(t)).Spec.Template.Spec
	for _, name := range []string{"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter"} {
		args := container(t, pod, name).Args
		if !slices.Contains(args, "--leader-election") {
			t.Errorf("two of %s would work at the same time during an upgrade", name)
		}
		// By default a refused attach is tried again only minutes after the way is free.
		for _, arg := range []string{"--retry-interval-max=10s", "--kube-api-qps=50", "--kube-api-burst=100"} {
			if !slices.Contains(args, arg) {
				t.Errorf("%s has no %s", name, arg)
			}
		}
	}
}

// Nothing of snapshots is left but the right to look for them, which the provisioner uses as soon as there are any in the cluster.
func TestSnapshotsAreASwitch(t *testing.T) {
	objects := load(t)
	if class := only[*volumeSnapshotClass](t, objects); class.Driver != config.DefaultDriverName || class.DeletionPolicy != "Retain" {
		t.Errorf("VolumeSnapshotClass %+v", class)
	}
	for _, o := range load(t, "--set", "sidecars.snapshotter.enabled=false,volumeSnapshotClasses=null") {
		if d, ok := o.(*appsv1.Deployment); ok && slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return c.Name == "csi-snapshotter" }) {
			t.Error("the sidecar is there")
		}
		if _, ok := o.(*volumeSnapshotClass); ok || strings.HasSuffix(o.GetName(), "-snapshotter") {
			t.Errorf("%s %s is there", typeName(o), o.GetName())
		}
	}
	// CRDs that are missing must not keep anybody from installing the driver.
	if n := len(every[*volumeSnapshotClass](render(t, "--set", "config.rds[0].name=rds1,config.rds[0].address=10.0.0.1,config.rds[0].user=csi,config.rds[0].nvme.address=10.0.0.1,config.rds[0].pool.path=/p"))); n != 0 {
		t.Errorf("%d classes that nobody asked for", n)
	}
}

// Two controllers at a time, of which one decides: during an upgrade, and when the node of one is cut off.
func TestControllersAreSafeTogether(t *testing.T) {
	objects := load(t)
	d := only[*appsv1.Deployment](t, objects)
	args := container(t, d.Spec.Template.Spec, "rds-csi").Args
	for _, arg := range []string{"--leader-election", "--leader-election-namespace=rds-csi"} {
		if !slices.Contains(args, arg) {
			t.Errorf("the controller has no %s: two would decide", arg)
		}
	}
	if *d.Spec.Replicas != 2 || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal != 0 {
		t.Errorf("%d replicas, strategy %v", *d.Spec.Replicas, d.Spec.Strategy)
	}
	if grace := d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace == nil || *grace < 35 {
		t.Errorf("terminationGracePeriodSeconds is %v: the Lease is released after a drain of up to 25 s", grace)
	}
	budget := only[*policyv1.PodDisruptionBudget](t, objects)
	if !maps.Equal(budget.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels) || budget.Spec.MaxUnavailable.IntVal != 1 {
		t.Errorf("the budget is %v", budget.Spec)
	}
	// With one replica it would keep every drain of its node waiting for ever.
	if n := len(every[*policyv1.PodDisruptionBudget](load(t, "--set", "controller.replicas=1"))); n != 0 {
		t.Errorf("%d budgets for one replica", n)
	}
}

// The key of the RDS must not lie on every node, nor need a node know where the RDS is managed.
func TestNodeHasNoSecret(t *testing.T) {
	objects := load(t)
	pod := only[*appsv1.DaemonSet](t, objects).Spec.Template.Spec
	for _, v := range pod.Volumes {
		if v.Secret != nil {
			t.Errorf("the node plugin mounts secret %s", v.Secret.SecretName)
		}
		if v.ConfigMap != nil && strings.Contains(named[*corev1.ConfigMap](t, objects, v.ConfigMap.Name).Data["config.yaml"], "10.42.241.3") {
			t.Errorf("the node plugin gets the management address of the RDS in %s", v.ConfigMap.Name)
		}
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the node plugin gets a service account token that it never uses")
	}
}

// Only the node plugin touches its host.
func TestControllerIsRestricted(t *testing.T) {
	pod := only[*appsv1.Deployment](t, load(t)).Spec.Template.Spec
	if pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot || pod.HostNetwork {
		t.Error("the controller is root, or in the host's network")
	}
	containers := slices.Concat(pod.Containers, []corev1.Container{container(t, only[*appsv1.DaemonSet](t, load(t)).Spec.Template.Spec, "node-driver-registrar")})
	for _, c := range containers {
		s := c.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Contains(s.Capabilities.Drop, "ALL") {
			t.Errorf("%s is not restricted", c.Name)
		}
	}
}

// What each part does at the API server, each by its own role; without it the ledger stays unknown for ever, nothing is provisioned, or
// nothing attaches.
func TestEachPartMayDoItsWork(t *testing.T) {
	objects := load(t)
	for role, needs := range map[string]map[string][]string{
		"rds-csi-controller": {
			"volumeattachments": {"get", "list", "watch"},
			"persistentvolumes": {"get", "list", "watch"},
			"nodes":             {"get", "list", "watch"},
			"csinodes":          {"get", "list", "watch"},
			"pods":              {"list"},
			"events":            {"create", "patch"},
		},
		"rds-csi-provisioner": {
			"persistentvolumes":      {"get", "list", "watch", "create", "patch", "delete"},
			"persistentvolumeclaims": {"get", "list", "watch", "update"},
			"storageclasses":         {"get", "list", "watch"},
			"volumeattachments":      {"get", "list", "watch"},
			"csinodes":               {"get", "list", "watch"},
			"nodes":                  {"get", "list", "watch"},
			"volumesnapshots":        {"get", "list", "watch", "update"},
			"volumesnapshotcontents": {"get", "list"},
			"events":                 {"create", "patch"},
		},
		"rds-csi-attacher": {
			"volumeattachments":        {"get", "list", "watch", "patch"},
			"volumeattachments/status": {"patch"},
			"persistentvolumes":        {"get", "list", "watch", "patch"},
			"csinodes":                 {"get", "list", "watch"},
		},
		"rds-csi-snapshotter": {
			"volumesnapshotclasses":         {"get", "list", "watch"},
			"volumesnapshotcontents":        {"get", "list", "watch", "patch"},
			"volumesnapshotcontents/status": {"update", "patch"},
			"events":                        {"create", "patch"},
		},
		"rds-csi-resizer": {
			"persistentvolumes":             {"get", "list", "watch", "patch"},
			"persistentvolumeclaims":        {"get", "list", "watch"},
			"persistentvolumeclaims/status": {"patch"},
			"events":                        {"create", "patch"},
		},
	} {
		rules := named[*rbacv1.ClusterRole](t, objects, role).Rules
		bound := named[*rbacv1.ClusterRoleBinding](t, objects, role)
		if bound.RoleRef.Name != role || bound.Subjects[0].Name != "rds-csi-controller" || bound.Subjects[0].Namespace != "rds-csi" {
			t.Errorf("%s is bound to %v", role, bound.Subjects)
		}
		for resource, verbs := range needs {
			for _, verb := range verbs {
				if !allows(rules, resource, verb) {
					t.Errorf("%s may not %s %s", role, verb, resource)
				}
			}
		}
	}
	leases := named[*rbacv1.Role](t, objects, "rds-csi-leases")
	for _, verb := range []string{"get", "create", "update"} {
		if !allows(leases.Rules, "leases", verb) {
			t.Errorf("nobody may %s leases: none ever becomes a leader", verb)
		}
	}
}

// What nobody needs. A driver that could write these would be believed less by those who install it.
func TestNoPartMayDoMore(t *testing.T) {
	objects := load(t)
	rules := map[string][]rbacv1.PolicyRule{}
	for _, r := range every[*rbacv1.ClusterRole](objects) {
		rules[r.Name] = r.Rules
	}
	rules["leases"] = named[*rbacv1.Role](t, objects, "rds-csi-leases").Rules // that of capacity may look at pods: its own namespace's
	for name, rules := range rules {
		for _, r := range rules {
			if all := slices.Concat(r.Verbs, r.Resources, r.APIGroups); slices.Contains(all, "*") {
				t.Errorf("%s has a wildcard: %v", name, r)
			}
		}
		for resource, verbs := range map[string][]string{
			"secrets": {"get", "list", "watch"}, "pods": {"get", "create", "delete"}, "nodes": {"patch", "update"},
			"volumeattachments": {"create", "update", "delete"}, "leases": {"delete"}, "configmaps": {"get", "update"},
			"csinodes": {"create", "update", "patch", "delete"},
		} {
			for _, verb := range verbs {
				if allows(rules, resource, verb) {
					t.Errorf("%s may %s %s", name, verb, resource)
				}
			}
		}
	}
	driver := named[*rbacv1.ClusterRole](t, objects, "rds-csi-controller").Rules
	for _, verb := range []string{"create", "update", "patch", "delete"} {
		if allows(driver, "persistentvolumes", verb) {
			t.Errorf("the driver may %s persistentvolumes", verb)
		}
	}
}

func allows(rules []rbacv1.PolicyRule, resource, verb string) bool {
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
		return slices.Contains(r.Resources, resource) && slices.Contains(r.Verbs, verb) && len(r.ResourceNames) == 0
	})
}

// The node plugin drains for 25 s and waits 20 s for a mkfs; killed before that it leaves a volume half formatted.
func TestNodeHasTimeToEnd(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, load(t)).Spec.Template.Spec
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || *grace < 50 {
		t.Errorf("terminationGracePeriodSeconds is %v, the plugin needs up to 45", grace)
	}
}

// Nothing may land in another namespace than that of the release, where nobody looks for it, nor claim to be cluster-wide by accident.
func TestEverythingIsInTheNamespace(t *testing.T) {
	clusterWide := []string{"*v1.CSIDriver", "*v1.StorageClass", "*manifests.volumeSnapshotClass", "*v1.ClusterRole", "*v1.ClusterRoleBinding"}
	for _, o := range load(t) {
		want := "rds-csi"
		if slices.Contains(clusterWide, typeName(o)) {
			want = ""
		}
		if o.GetNamespace() != want {
			t.Errorf("%s %s is in namespace %q", typeName(o), o.GetName(), o.GetNamespace())
		}
	}
}

func TestConfigurationIsAccepted(t *testing.T) {
	objects := load(t)
	for name, role := range map[string]config.Role{"rds-csi-controller": config.Controller, "rds-csi-node": config.Node} {
		text := named[*corev1.ConfigMap](t, objects, name).Data["config.yaml"]
		cfg, err := config.Parse([]byte(text), role)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if cfg.ClusterID != "homelab" {
			t.Errorf("%s: cluster %q", name, cfg.ClusterID)
		}
		if role == config.Controller {
			keysAreMounted(t, cfg, container(t, only[*appsv1.Deployment](t, objects).Spec.Template.Spec, "rds-csi"))
		}
	}
}

// keysAreMounted: files that the configuration names lie where the Secret is mounted, whether the chart named them or the user.
func keysAreMounted(t *testing.T, cfg config.Config, c corev1.Container) {
	t.Helper()
	i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "secret" })
	if i < 0 {
		t.Fatal("the controller has no secret")
	}
	dir := c.VolumeMounts[i].MountPath
	for _, r := range cfg.RDS {
		if filepath.Dir(r.PrivateKeyFile) != dir || r.HostKeyFingerprint == "" && filepath.Dir(r.KnownHostsFile) != dir {
			t.Errorf("rds %s: key %s and host keys %q are not in %s", r.Name, r.PrivateKeyFile, r.KnownHostsFile, dir)
		}
	}
}

// The program itself is asked whether it knows its flags: with -h at the end it says so and does nothing.
func TestFlagsAreTheDriversOwn(t *testing.T) {
	program := filepath.Join(t.TempDir(), "rds-csi")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "../../cmd/rds-csi")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as in the Makefile: most of it is compiled already
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	objects := load(t)
	for _, pod := range []corev1.PodSpec{only[*appsv1.Deployment](t, objects).Spec.Template.Spec, only[*appsv1.DaemonSet](t, objects).Spec.Template.Spec} {
		args := append(slices.Clone(container(t, pod, "rds-csi").Args), "-h")
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Errorf("rds-csi %q: %v: %s", args, err, out)
		}
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
