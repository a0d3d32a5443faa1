// Package attach decides which node may have which volume.
package attach
