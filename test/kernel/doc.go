// Package kernel holds the tests that need a real Linux kernel: NVMe/TCP initiator and target, mkfs, mount, I/O.
//
// They run as root inside the QEMU guest of test/guest and nowhere else (make kernel-test, or as the third tier of make
// test); the build tag "kernel" keeps them out of go test ./... on the host. The guest is emulated where there is no
// KVM, so they run without the race detector there: it would make them some ten times slower again. The packages that
// they exercise run under it on the host.
//
// Beside that machine there is a second one, on a link of the two, which is another node with its own kernel: TestMain makes an
// agent of this program there, which runs the node plugin (the program rds-csi itself) and does what tests on the first machine
// ask for.
package kernel
