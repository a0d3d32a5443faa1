// Package sim is a simulated ROSE Data Server: a RouterOS device with a disk table, files, pools, users and exports,
// reached over SSH like the real one.
//
// It is as unforgiving as the device where the device is known, and where nobody knows, the behaviour is a switch
// (see Quirks) so that a driver can be tested both ways. It shares no code with the driver: one misunderstanding must
// not hide in both. Tags in comments say how sure a fact is: [V] manual, [R] seen on a device, [S] third party,
// [I] inferred, [U] unknown.
package sim
