//go:build !linux

// Package qemu runs a sandbox as a virtual machine, on Linux alone.
package qemu
