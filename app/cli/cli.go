// Package cli is the command line as a package: arguments in, streams out, an
// exit code back. It speaks to a running host over the control socket, or
// opens the home itself when none runs.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/storage"
)

// Exit codes, decisions D25.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLocked      = 3
	exitUnreachable = 4
	exitIntegrity   = 5
	exitConfirm     = 6
)

// Version is set at build time.
var Version = "dev"

// System is what the command line may touch of its process.
type System struct {
	Program        string // as it is typed
	Args           []string
	Stdin          *os.File
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Ports          func() engine.Ports

	// Approvals shows requests to pair on the desktop and calls review when
	// somebody wants to see one; nil leaves it out.
	Approvals func(ctx context.Context, host *control.Client, review func(pairing.Prompt)) error
}

// app is one invocation.
type app struct {
	System
	term *term

	home         string
	json         bool
	quiet        bool
	noColor      bool
	yes          bool
	passphraseFD int
	looks        bool // the command is of use without the keystore
}

// usageError is an error of how the command was written.
type usageError struct {
	text string
	next string
}

func (e *usageError) Error() string { return e.text }

func usage(next, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), next}
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, s System) int {
	a := &app{System: s}
	root := a.root()
	root.SetArgs(s.Args)
	root.SetIn(s.Stdin)
	root.SetOut(s.Stdout)
	root.SetErr(s.Stderr)
	a.term = newTerm(a)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.report(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "osaurus",
		Short:         "A host for AI agents that others may talk to only as far as you allow",
		Long:          "osaurus keeps your identity, decides who may talk to your agents, and carries\nthose talks end-to-end encrypted.\n\nStart with:  osaurus serve",
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.prepare() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.home, "home", "", "directory of the host (default $OSAURUS_HOME or ~/.osaurus)")
	f.BoolVar(&a.json, "json", false, "print JSON: one document, or one line for each event")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print results only")
	f.BoolVar(&a.noColor, "no-color", false, "never use colour")
	f.BoolVarP(&a.yes, "yes", "y", false, "answer yes to questions of confirmation")
	f.IntVar(&a.passphraseFD, "passphrase-fd", -1, "read the keystore's passphrase from this file descriptor")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(c.CommandPath()+" --help", "%s", err)
	})
	root.AddGroup(&cobra.Group{ID: "host", Title: "Host:"}, &cobra.Group{ID: "who", Title: "Who may talk:"}, &cobra.Group{ID: "peers", Title: "Other hosts:"})
	a.hostCommands(root)
	a.identityCommands(root)
	a.agentCommands(root)
	a.keyCommands(root)
	a.storageCommands(root)
	a.artifactCommands(root)
	a.chatCommands(root)
	a.memoryCommands(root)
	a.sandboxCommands(root)
	a.peerCommands(root)
	a.approvalCommands(root)
	a.relayCommands(root)
	a.inviteCommands(root)
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes, Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(a.Stdout, exitCodes) }})
	root.InitDefaultCompletionCmd()
	return root
}

const exitCodes = `Exit codes
  0  done
  1  failed
  2  the command was written wrong
  3  the keystore is locked, or a key is missing
  4  the host, or the other host, cannot be reached
  5  something stored does not verify
  6  needs confirmation: repeat with --yes
"osaurus sandbox exec" ends with the code of the command that it ran.`

// prepare finds the home.
func (a *app) prepare() error {
	if a.home == "" {
		a.home = a.Getenv("OSAURUS_HOME")
	}
	if a.home == "" {
		base := a.Getenv("HOME")
		if base == "" {
			return usage("osaurus --home DIR …", "there is no home directory: set HOME or pass --home")
		}
		a.home = filepath.Join(base, ".osaurus")
	}
	abs, err := filepath.Abs(a.home)
	a.home = abs
	a.term.color = a.term.color && !a.noColor
	return err
}

func (a *app) socket() string { return filepath.Join(a.home, filepath.FromSlash(engine.SocketPath)) }

// report prints an error with what to type next, and returns its exit code.
func (a *app) report(err error) int {
	if e, ok := errors.AsType[exitError](err); ok {
		if after := strings.TrimSpace(strings.TrimPrefix(err.Error(), e.Error())); after != "" {
			a.say("%s %s", a.term.paint(yellow, "warning:"), after)
		}
		return int(e)
	}
	exit, code, next := classify(err)
	text := err.Error()
	if code == "cancelled" {
		text = "interrupted"
	}
	if strings.HasPrefix(text, "unknown command") {
		exit, code, next = exitUsage, "usage", "osaurus --help"
	}
	if a.json {
		a.print(map[string]any{"error": map[string]any{"code": code, "message": text, "exit": exit, "next": a.typed(next)}})
		return exit
	}
	fmt.Fprintf(a.Stderr, "%s %s\n", a.term.paint(red, "error:"), a.typed(text))
	if next != "" {
		fmt.Fprintf(a.Stderr, "  next:  %s\n", a.typed(next))
	}
	return exit
}

func classify(err error) (exit int, code, next string) {
	if e, ok := errors.AsType[*usageError](err); ok {
		return exitUsage, "usage", e.next
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		code := cmp.Or(e.Code, "failed") // another host may name none
		if e.Exit == exitUsage && nextFor(code) == "osaurus doctor" {
			return e.Exit, code, "osaurus --help"
		}
		return e.Exit, code, nextFor(code)
	}
	switch {
	case errors.Is(err, errConfirm):
		return exitConfirm, "needs_confirmation", "the same command with --yes"
	case errors.Is(err, control.ErrNoHost):
		return exitUnreachable, "no_host", "osaurus serve"
	case errors.Is(err, engine.ErrInUse):
		return exitUnreachable, "in_use", "osaurus stop, then the same command"
	case errors.Is(err, engine.ErrPortInUse):
		return exitFailed, "port_in_use", "osaurus settings set port=0"
	case errors.Is(err, context.Canceled):
		return exitFailed, "cancelled", ""
	}
	if exit, code, next := classifyExport(err); exit != exitOK {
		return exit, code, next
	}
	if exit, code, next := classifyArtifact(err); exit != exitOK {
		return exit, code, next
	}
	if code, _ := storage.DiskTrouble(err); code != "" {
		return exitFailed, code, nextFor(code)
	}
	f := fault.Of(err)
	switch f.Code {
	case fault.KeystoreLocked:
		if errors.Is(err, keystore.ErrPassphrase) {
			return exitLocked, f.Code.Name(), "the same command with --passphrase-fd 0, or at a terminal that can ask"
		}
		return exitLocked, f.Code.Name(), nextFor(f.Code.Name())
	case fault.KeystoreCorrupt, fault.StateCorrupt:
		return exitIntegrity, f.Code.Name(), "osaurus doctor"
	case fault.Usage:
		return exitUsage, "usage", ""
	}
	return exitFailed, "failed", "osaurus doctor"
}

// nextFor names the command that gets on from a refusal.
func nextFor(code string) string {
	if next := classifyRelay(code); next != "" {
		return next
	}
	switch code {
	case "no_master":
		return "osaurus identity create, or with its 24 words: osaurus identity restore"
	case "master_exists":
		return "osaurus identity show"
	case "keystore_locked": // a host that runs has its passphrase
		return "unlock the keyring or keychain of this login, then the same command"
	case "foreign_phrase":
		return "osaurus identity restore --anyway"
	case "no_model_provider":
		return "osaurus provider probe"
	case "state_corrupt", "keystore_corrupt":
		return "osaurus doctor"
	case "refused":
		return "osaurus peers list"
	case "unreachable":
		return "osaurus discover"
	case "disk_full":
		return "make room on the disk, then the same command"
	case "disk_read_only", "disk_failed":
		return "mend the disk, then the same command"
	case "not_on_relay":
		return "osaurus relay enable AGENT"
	case "storage_locked", "storage_key_missing", "store_corrupt", "store_missing", "store_unexpected_plaintext", "store_unsafe_path", "store_forward_version":
		return "osaurus storage status"
	case "sandbox_unavailable":
		return "osaurus sandbox diagnose, once that is there"
	case "artifact_damaged":
		return "osaurus artifacts verify"
	case "host_running":
		return "osaurus stop, then the same command"
	case "log_broken":
		return "osaurus log show"
	}
	return "osaurus doctor"
}

// print writes one JSON document on one line.
func (a *app) print(v any) {
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a reader that is gone cannot be told so
}

// say talks to the person on stderr; results go to stdout.
func (a *app) say(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintln(a.Stderr, a.typed(fmt.Sprintf(format, args...)))
	}
}

// out writes a result line.
func (a *app) out(format string, args ...any) { fmt.Fprintf(a.Stdout, format+"\n", args...) }

// result prints v as JSON, or calls text.
func (a *app) result(v any, text func()) error {
	if a.json {
		a.print(v)
		return nil
	}
	text()
	return nil
}
