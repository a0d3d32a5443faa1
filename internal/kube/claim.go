package kube

// Claim is one PersistentVolume of ours, and the claim that it is bound to.
type Claim struct {
	PV, PVUID            string
	Namespace, Name, UID string // of the claim; empty when the PersistentVolume is not bound
}
