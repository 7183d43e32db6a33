package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

var update = flag.Bool("update", false, "write testdata/help.txt anew")

func tree() *cobra.Command {
	a := &app{System: System{Getenv: func(string) string { return "" }, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}}
	root := a.root()
	a.term = newTerm(a)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		walk(sub, f)
	}
}

// TestEveryCommandHelps: a line for lists, and an example where arguments are
// wanted that their names do not explain.
func TestEveryCommandHelps(t *testing.T) {
	t.Parallel()
	count := 0
	walk(tree(), func(c *cobra.Command) {
		count++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 72 {
			t.Errorf("%s has the line %q", c.CommandPath(), c.Short)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no text", c.CommandPath(), f.Name)
			}
		})
	})
	if count < 40 {
		t.Errorf("only %d commands were looked at", count)
	}
}

// TestInterrupted: whoever ends a command reads that, and no address.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	a := &app{System: System{Getenv: func(string) string { return "" }, Stdout: &bytes.Buffer{}, Stderr: &errs}}
	a.term = newTerm(a)
	err := fmt.Errorf("asking the host: %w", context.Canceled)
	if exit := a.report(err); exit != exitFailed || errs.String() != "error: interrupted\n" {
		t.Errorf("%d, %q", exit, errs.String())
	}
}

// TestHelpTexts holds every help text to a file, so that a change is seen.
func TestHelpTexts(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	walk(tree(), func(c *cobra.Command) {
		if c.Parent() != nil && c.Parent().Name() == "completion" || c.Name() == "completion" || c.Name() == "help" {
			return // the library's own
		}
		all.WriteString("$ " + c.CommandPath() + " --help\n")
		c.InitDefaultHelpFlag()
		c.SetOut(&all)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		all.WriteString("\n")
	})
	const file = "testdata/help.txt"
	if *update {
		if err := os.WriteFile(file, all.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, all.Bytes()) {
		t.Error("the help texts are not those of testdata/help.txt; run with -update and look at the difference")
	}
	for line := range strings.Lines(all.String()) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 120 {
			t.Errorf("a line is too wide: %s", line)
		}
	}
}

func TestTyped(t *testing.T) {
	t.Parallel()
	a := &app{System: System{Program: "build/osaurus", Args: []string{"--home", "x"}}, home: "/a b"}
	for in, want := range map[string]string{
		"osaurus status":                     "build/osaurus --home '/a b' status",
		"Next:\n  osaurus status":            "Next:\n  build/osaurus --home '/a b' status",
		"look again: osaurus identity drift": "look again: build/osaurus --home '/a b' identity drift",
		"  osaurus --home /tmp/second run x": "  build/osaurus --home /tmp/second run x",
		"another osaurus is using this home": "another osaurus is using this home",
		"the same command with --yes":        "the same command with --yes",
	} {
		if got := a.typed(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	a.Args = nil
	if got := a.typed("osaurus status"); got != "build/osaurus status" {
		t.Errorf("without a flag: %q", got)
	}
	if got := quoted("it's"); got != `'it'\''s'` {
		t.Errorf("quoted: %s", got)
	}
}

// TestDesktopApprovals: a host that serves hands its control socket to what
// shows requests on the desktop, and ends it with itself.
func TestDesktopApprovals(t *testing.T) {
	t.Parallel()
	home, err := os.MkdirTemp("", "osr") // a control socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan error, 1)
	ended := make(chan int, 1)
	go func() {
		ended <- Main(ctx, System{
			Program: "osaurus", Args: []string{"--home", home, "--json", "serve", "--port", "0"}, Stdin: os.Stdin, Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" },
			Ports: func() engine.Ports { p := bridge.Portable(); p.Advertiser, p.Browser = nil, nil; return p },
			Approvals: func(ctx context.Context, host *control.Client, _ func(pairing.Prompt)) error {
				_, err := host.Status(ctx)
				asked <- err
				<-ctx.Done()
				return nil
			},
		})
	}()
	select {
	case err := <-asked:
		if err != nil {
			t.Error(err)
		}
	case code := <-ended:
		t.Fatalf("the host ended with %d", code)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d", code)
	}
}
