//go:build !linux

// Package process holds processes on the host that are sandboxes, which only
// Linux has.
package process
