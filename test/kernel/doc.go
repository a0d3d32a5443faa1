// Package kernel holds the tests that need a real Linux kernel: NVMe/TCP initiator and target, mkfs, mount, I/O.
//
// They run as root inside the QEMU guest of test/guest and nowhere else (make kernel-test, or as the third tier of make
// test); the build tag "kernel" keeps them out of go test ./... on the host. The guest is emulated where there is no
// KVM, so they run without the race detector there: it would make them some ten times slower again. The packages that
// they exercise run under it on the host.
package kernel
