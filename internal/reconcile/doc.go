// Package reconcile looks after what is attached: it compares what Kubernetes
// wants, what kubelets say and what each RDS has, reports where they contradict
// each other, and repairs the one thing that cannot cost data, a lost export.
//
// # What a look proves
//
// A look is one complete, parsed answer of its authority. A look-up that failed
// says nothing: not that a volume is gone, not that it is there. What was found
// counts once every look for longer than the grace time has found it, measured
// between looks and not by a clock that runs while an RDS is silent. What is no
// longer true vanishes at once.
//
// # What is remembered
//
// Nothing that matters. When a finding was first seen is in memory only: a
// restart waits the grace time again, and says again what it finds. A repair is
// idempotent, so that doing it twice does no harm.
//
// So of what the first look meets, after a start or after an authority was silent,
// nobody knows whether it has counted before. Until it counts here, or is gone, its
// kind has no number: 0 would deny what was told a moment ago. What begins after
// the first look is known to be new, and is 0 until it has lasted.
//
// # Who runs it
//
// The loops run in one process at a time, the leader. Each is a
// func(context.Context) error; Run starts it again when it fails. One silent RDS
// has its own loop and delays nobody.
package reconcile
