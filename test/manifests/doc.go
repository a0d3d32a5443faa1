// Package manifests holds the tests of charts/rds-csi: what helm renders must at least be what the API server accepts, what the driver's own
// configuration reader and command line accept, and what keeps data safe.
package manifests
