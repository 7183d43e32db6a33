//go:build !linux

// Command standin runs inside sandboxes, which are Linux.
package main

func main() {}
