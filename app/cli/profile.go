package cli

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"osaurus/engine/atomicfile"
	"osaurus/engine/control"
)

func (a *app) profileCommand() *cobra.Command {
	var seconds int
	c := command("host", "profile KIND FILE", "Write a profile of the running host for go tool pprof", "  osaurus profile cpu cpu.pprof --seconds 20\n  osaurus profile heap heap.pprof", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
			var got bytes.Buffer
			if err := c.Profile(ctx, args[0], seconds, &got); err != nil {
				return err
			}
			if err := atomicfile.Write(args[1], got.Bytes()); err != nil {
				return err
			}
			return a.result(map[string]any{"file": args[1], "bytes": got.Len()}, func() { a.out("%s", args[1]) })
		})
	})
	c.ValidArgs = control.ProfileKinds
	c.Long = c.Short + ".\n\nKINDs: cpu, heap, allocs, goroutine, mutex, block, threadcreate."
	c.Flags().IntVar(&seconds, "seconds", 30, "how long to watch the processor, at most 300")
	return c
}
