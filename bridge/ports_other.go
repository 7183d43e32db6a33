//go:build !linux && !(darwin && cgo)

package bridge

import "osaurus/engine"

// adapt has nothing of this system to offer.
func adapt(*engine.Ports) {}
