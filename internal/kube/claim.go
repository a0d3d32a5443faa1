package kube

// Claim is one PersistentVolume of ours, and the claim that it is bound to.
type Claim struct {
	PV, PVUID            string
	Namespace, Name, UID string // of the claim; empty when the PersistentVolume was never bound
	Deleted              bool   // the claim is gone, and the PersistentVolume goes on naming it
}
