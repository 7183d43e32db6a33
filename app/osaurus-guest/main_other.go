//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "osaurus-guest runs inside a Linux sandbox only")
	os.Exit(1)
}
