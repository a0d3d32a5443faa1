// Package appliance is what the driver asks of an RDS: volumes, their exports, the pool they lie in, and what it measures of itself.
//
// A volume is one /disk item of type file, exported as one NVMe/TCP subsystem with one namespace (NSID 1). Nothing about
// it is remembered here: every answer is read from the RDS by the command that gives it. Every mutating operation is one
// console script that looks, decides and acts on the device itself, and then prints what is true afterwards, so that a
// repeated, concurrent or half-lost call ends in the same place.
//
// On a Btrfs pool a volume is a subvolume with one image in it, and snapshots and clones share its blocks. Elsewhere they are full
// copies that the RDS makes in the background; how far one has come stands beside it on the RDS (copymark.go), so that any
// process can go on with it.
//
// What a cluster does not own it never changes: ownership stands in the item's comment, and is checked on the device in
// the same script that acts.
//
// How sure a statement about RouterOS is stands beside it: [V] the vendor's manual, [R] seen in real output, [S] told by
// a third party, [I] inferred, [U] unknown.
package appliance
