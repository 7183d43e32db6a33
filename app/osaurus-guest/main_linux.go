// Command osaurus-guest is the first process of a sandbox. Its only argument
// is the boot file.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"osaurus/engine/sandbox/guest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "Usage: osaurus-guest <boot file>")
		os.Exit(2)
	}
	// A first process gets only the signals it asks for.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := guest.Main(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "osaurus-guest:", err)
		os.Exit(1)
	}
}
