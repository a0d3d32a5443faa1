//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/test/cluster/controlplane"
)

// installation is one release of the chart with an RDS of its own, in a namespace of its own and under a driver name of
// its own: tests do not see each other's attachments, and what one leaves behind is nobody's.
type installation struct {
	t         *testing.T
	namespace string
	driver    string // CSI driver name
	class     string // StorageClass, and the start of every other name
	dir       string // configuration, sockets, the RDS's data
	chart     chart
	pod       string              // of the controller, for what looks for it; mostly there is none
	flags     map[string][]string // of sidecars, by container, in the place of the chart's
	api       *controlplane.Proxy // the controllers' way to the API server
	alone     bool                // the controllers: nobody starts one again

	simulators map[string]*controlplane.Process // by the name of the RDS

	*replica // the first, and in most tests the only one
}

// replica is what one pod of the controller's Deployment runs.
type replica struct {
	of         *installation
	name       string
	address    string // of the controller's metrics
	controller *controlplane.Process
	sidecars   []*sidecar
}

// newInstallation installs the driver with its sidecars, and waits until it is ready. The changes are to the chart's
// values.
func newInstallation(t *testing.T, changes ...func(*installation, values)) *installation {
	t.Helper()
	i := prepare(t, changes...)
	i.startController()
	i.startSidecars()
	i.awaitReady()
	return i
}

// prepare does everything but start the driver and its sidecars.
func prepare(t *testing.T, changes ...func(*installation, values)) *installation {
	t.Helper()
	name := short(t.Name())
	i := &installation{t: t, namespace: "rds-csi-" + name, driver: name + ".csi.srvlab.io", class: name, dir: shortDir(t), simulators: map[string]*controlplane.Process{}}
	i.replica = i.newReplica("")
	t.Cleanup(func() {
		if err := seen.tooMany(i.driver); err != nil {
			t.Error(err)
		}
	})
	var err error
	i.api, err = controlplane.NewProxy(t.Context(), plane.Front.Address())
	i.must(err)
	t.Cleanup(i.api.Close)
	v := i.usual()
	for _, change := range changes {
		change(i, v)
	}
	i.chart = render(t, name, i.namespace, v, i.in("values.yaml"))
	i.must(os.WriteFile(i.in("driver.yaml"), []byte(i.chart.config), 0o600))
	i.must(plane.MakeNamespace(t.Context(), i.namespace))
	i.must(plane.Apply(t.Context(), i.chart.objects))
	i.awaitRights()
	if slices.ContainsFunc(i.chart.containers["csi-provisioner"].Env, func(v corev1.EnvVar) bool { return v.Name == "POD_NAME" }) {
		i.pod = i.makePodOfController()
	}
	i.must(plane.Kubeconfig(t.Context(), i.namespace, i.chart.account, i.api.Address(), i.in("driver.kubeconfig")))
	i.must(plane.Kubeconfig(t.Context(), i.namespace, i.chart.account, plane.Front.Address(), i.in("sidecar.kubeconfig")))
	return i
}

// makePodOfController makes the Deployment, whose pod nobody runs, and answers the pod's name: the provisioner looks from
// its pod for the Deployment.
func (i *installation) makePodOfController() (name string) {
	i.t.Helper()
	i.must(plane.Apply(i.t.Context(), i.chart.deployment))
	i.t.Cleanup(func() {
		everywhere := metav1.ListOptions{}
		i.must(plane.Admin.AppsV1().Deployments(i.namespace).DeleteCollection(background(), metav1.DeleteOptions{}, everywhere))
	})
	seen.until(i.t, "the controller's pod is made", func() error {
		pods, err := seen.pods.Pods(i.namespace).List(everything())
		if err == nil && len(pods) == 0 {
			err = errors.New("there is none")
		}
		if err == nil {
			name = pods[0].Name
		}
		return err
	})
	return name
}

// shortDir is a folder whose name leaves room for a socket's, of which the kernel takes 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rdscsi-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (i *installation) in(name string) string { return filepath.Join(i.dir, name) }

// newReplica is one that was not started.
func (i *installation) newReplica(name string) *replica {
	i.t.Helper()
	address, err := controlplane.FreeAddress(i.t.Context())
	i.must(err)
	return &replica{of: i, name: name, address: address}
}

// socket is the controller's.
func (r *replica) socket() string { return r.of.in("csi" + r.name + ".sock") }

// launch starts a program that is ended with the test, with a log of its own.
func (i *installation) launch(name, program string, args ...string) *controlplane.Process {
	i.t.Helper()
	return i.keep(nil, name, program, args...)
}

// keep does so, and starts it again where again agrees.
func (i *installation) keep(again func() bool, name, program string, args ...string) *controlplane.Process {
	i.t.Helper()
	p, err := plane.Launcher.Keep(again, i.class+"-"+name, program, args...)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(p.Stop)
	return p
}

// startSimulator starts an RDS of that name, with its data in a folder of that name; it answers what the driver's
// configuration says of it.
func (i *installation) startSimulator(name string, args ...string) (rds map[string]any) {
	i.t.Helper()
	p := i.launch("sim-"+name, filepath.Join(built, "rds-sim"), append(args, "--ssh-address", "127.0.0.1:0", "--data", i.in(name))...)
	i.poll("rds-sim has announced itself", p, func(context.Context) error {
		log, err := os.ReadFile(p.Log)
		if err == nil && !strings.Contains(string(log), "answers SSH") { // its last word, after the file
			err = errors.New("it has not")
		}
		return err
	})
	i.simulators[name] = p
	text, err := os.ReadFile(filepath.Join(i.in(name), "driver.yaml"))
	i.must(err)
	var config struct {
		RDS []map[string]any `json:"rds"`
	}
	i.must(yaml.Unmarshal(text, &config))
	rds = config.RDS[0]
	rds["name"], rds["default"] = name, len(i.simulators) == 1
	return rds
}

// startController starts the driver, again if need be, and does not wait. In a cluster its identity is the pod's name.
func (r *replica) startController() {
	r.of.t.Helper()
	r.controller = r.of.keep(r.again("rds-csi"+r.name), "rds-csi"+r.name, filepath.Join(built, "rds-csi"), r.of.chart.arguments(r.of.t, "rds-csi",
		"--config="+r.of.in("driver.yaml"), "--endpoint=unix://"+r.socket(), "--metrics-address="+r.address,
		"--kubeconfig="+r.of.in("driver.kubeconfig"), "--leader-election-identity=controller"+r.name)...)
}

// unsupervised is for a test that is about who leads, or ends leading: nobody starts its controllers again.
func unsupervised(i *installation, _ values) { i.alone = true }

// again starts a controller that ended because it could not renew its Lease, which it does by design where the machine
// gives it, or the API server, no time for ten seconds: as the kubelet would. Twice is no accident any more, and what ends
// in another way is not started. A run that had any keeps its logs.
func (r *replica) again(name string) func() bool {
	if r.of.alone {
		return nil
	}
	log, times := filepath.Join(plane.Logs(), r.of.class+"-"+name+".log"), 0
	return func() bool {
		if times++; times > 1 || !saysLast(log, "leadership lost") {
			return false
		}
		leasesLost.Add(1)
		r.of.t.Logf("%s: %s lost its Lease and is started again", time.Now().Format(time.StampMilli), name)
		fmt.Fprintf(os.Stderr, "cluster: %s: %s lost its Lease and is started again, see %s\n", r.of.t.Name(), name, log)
		return true
	}
}

// saysLast says whether the last line of a log has that.
func saysLast(log, what string) bool {
	text, err := os.ReadFile(log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return err == nil && strings.Contains(lines[len(lines)-1], what)
}

// awaitReady waits for the driver's own word.
func (r *replica) awaitReady() {
	r.of.t.Helper()
	r.awaitNote("")
}

// awaitNote waits until that word says so. It is ready before it has read for the first time who leads.
func (r *replica) awaitNote(want string) {
	r.of.t.Helper()
	r.of.poll(fmt.Sprintf("the controller is ready and says %q", want), r.controller, func(ctx context.Context) error {
		status, body, err := get(ctx, "http://"+r.address+"/readyz")
		if err == nil && (status != http.StatusOK || !strings.Contains(body, want)) {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}

// poll is for what nobody tells of.
func (i *installation) poll(what string, p *controlplane.Process, ask func(context.Context) error) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.Done():
			i.t.Fatalf("%s: %v", what, p.Err())
		case <-ctx.Done():
			i.t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

func get(ctx context.Context, url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

// sidecar is started again whenever it ends, as the kubelet does: the sidecars end themselves when they lose the driver.
type sidecar struct {
	name  string
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// startSidecars starts the sidecars of the pod.
func (r *replica) startSidecars() {
	r.of.t.Helper()
	for name := range r.of.chart.containers {
		if strings.HasPrefix(name, "csi-") {
			r.startSidecar(name)
		}
	}
}

func (r *replica) startSidecar(name string) {
	i := r.of
	i.t.Helper()
	arguments := i.chart.arguments(i.t, name, append([]string{
		"--csi-address=" + r.socket(), "--kubeconfig=" + i.in("sidecar.kubeconfig"), "--leader-election-namespace=" + i.namespace, "--v=5",
	}, i.flags[name]...)...)
	ctx, stop := context.WithCancel(context.Background())
	s := &sidecar{name: name, stop: stop}
	// env becomes the program, and what it sets is as in the pod.
	arguments = slices.Concat([]string{"NAMESPACE=" + i.namespace, "POD_NAME=" + i.pod, plane.Programs.Path(name)}, arguments)
	s.ended.Go(func() { supervise(ctx, i.class+"-"+name+r.name, "/usr/bin/env", arguments) })
	r.sidecars = append(r.sidecars, s)
	i.t.Cleanup(s.end)
}

// die is the end of the pod with its machine: nobody says goodbye.
func (r *replica) die() {
	r.controller.Kill()
	for _, s := range r.sidecars {
		s.end()
	}
	r.sidecars = nil
}

// stopSidecar ends one, as if its container did not start again.
func (r *replica) stopSidecar(name string) {
	r.sidecars = slices.DeleteFunc(r.sidecars, func(s *sidecar) bool {
		if s.name == name {
			s.end()
		}
		return s.name == name
	})
}

func (s *sidecar) end() {
	s.stop()
	s.ended.Wait()
}

func supervise(ctx context.Context, name, program string, args []string) {
	for {
		p, err := plane.Launcher.Start(name, program, args...)
		if err != nil {
			return // the test finds out by what does not happen
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			p.Kill() // nothing is lost: all they know is in Kubernetes
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}
