// Package manifests holds the tests of deploy/kubernetes: what a user applies must at least be what the API server accepts and what the
// driver's own configuration reader accepts.
package manifests
