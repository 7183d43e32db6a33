//go:build !linux

// Command osaurus-guest is the first process of a sandbox, which runs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "osaurus-guest runs inside a Linux sandbox only")
	os.Exit(1)
}
