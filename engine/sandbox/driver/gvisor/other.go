//go:build !linux

// Package gvisor runs a sandbox on gVisor, which exists for Linux alone.
package gvisor
