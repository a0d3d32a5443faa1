// Package sanity runs csi-sanity with everything real: the node service over the kernel's NVMe/TCP initiator, mkfs and
// mounts, the controller over SSH to a simulated RDS whose exports are the kernel's nvmet. It runs in the guest, as the
// other kernel tests do.
package sanity
