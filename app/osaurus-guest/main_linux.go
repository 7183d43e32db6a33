// Command osaurus-guest is the first process of a sandbox. Its only argument
// is the boot file. With "pack" or "unpack" and a user it carries a home.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"osaurus/engine/sandbox/guest"
	"osaurus/engine/sandbox/wire"
)

func main() {
	if len(os.Args) == 3 {
		carry(os.Args[1], os.Args[2])
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "Usage: osaurus-guest <boot file> | pack <user> | unpack <user>")
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

// carry packs or unpacks a home, says how many entries stayed behind, and exits.
func carry(verb, name string) {
	left, err := guest.Carry(verb, name, os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "osaurus-guest:", err)
		os.Exit(1)
	case left > 0:
		fmt.Fprintln(os.Stderr, left)
		os.Exit(wire.ExitPart)
	}
	os.Exit(0)
}
