// Package driver is the CSI services: it translates between the CSI specification (v1.13) and the domain.
//
// A handler reads: validate, lock the volume, do, answer. It returns the error as the domain gave it; the interceptor
// of the server turns errors into gRPC codes with the one table in codes.go. Idempotency lives below: the appliance
// and the kernel are asked, nothing is remembered here, and a restart at any instruction lets in nobody who was kept out.
package driver
