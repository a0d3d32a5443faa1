// Command kube-controller-manager is Kubernetes' own, with one timer of the attach/detach controller shortened: how
// long it waits for the kubelet of a node that is not ready before it detaches by force. Kubernetes has no flag for
// it; six minutes are too long for a test that runs at every change. Everything else is as released.
package main

import (
	"os"
	"time"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/pkg/controller/volume/attachdetach"
)

// forcedDetach is long enough for a test to see that nothing is detached before, on a loaded machine.
const forcedDetach = 20 * time.Second

func main() {
	attachdetach.DefaultTimerConfig.ReconcilerMaxWaitForUnmountDuration = forcedDetach
	os.Exit(cli.Run(app.NewControllerManagerCommand()))
}
