// Package console is the subset of the RouterOS console language that the simulated RDS understands.
//
// It is written from the manual and from what was seen of real devices, not from the driver's script builder: it
// judges the driver's quoting. Where the device is known to be unforgiving it is unforgiving too, and where nobody
// knows, it takes the harsher reading and says so beside the code ([V] manual, [R] seen, [S] third party,
// [I] inferred, [U] unknown).
//
// The package knows the language only. Disks, files and users belong to a Device, which it reaches through the small
// interfaces of device.go.
package console
