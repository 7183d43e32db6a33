// Command osaurus-host asks the host for something, from inside a sandbox.
package main

import (
	"context"
	"os"
	"os/signal"
	"os/user"
	"syscall"

	"osaurus/engine/sandbox/guest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	dir, err := os.Getwd()
	if err != nil {
		dir = ""
	}
	code := guest.Command{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Plugin: os.Getenv("OSAURUS_PLUGIN"), Dir: dir, Socket: testSocket(), Token: testToken(), Getuid: os.Getuid, LookupU: user.LookupId,
	}.Run(ctx)
	stop()
	os.Exit(code)
}
