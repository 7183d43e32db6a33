//go:build !linux

package main

// Sandboxes are Linux.
func main() {}
