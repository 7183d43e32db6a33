package cli

// The rules of this terminal interface:
//
//   - results go to stdout, talk goes to stderr;
//   - secrets come from the terminal or a file descriptor, never from
//     arguments or the environment, and are shown on a terminal only;
//   - colour is used on a terminal only, and never with NO_COLOR;
//   - every error ends with what to type next;
//   - what destroys something asks first, or needs --yes;
//   - Return never approves anything.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	xterm "golang.org/x/term"

	"osaurus/engine/secret"
)

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

// maxSecret bounds a secret read from a descriptor, in bytes.
const maxSecret = 64 << 10

var errConfirm = errors.New("this needs your confirmation")

// term is what we know of the terminal.
type term struct {
	in          *os.File
	err         io.Writer
	interactive bool // stdin and stderr are terminals
	color       bool
}

func newTerm(a *app) *term {
	t := &term{in: a.Stdin, err: a.Stderr}
	stderr, ok := a.Stderr.(*os.File)
	isTerm := ok && xterm.IsTerminal(int(stderr.Fd()))
	t.interactive = isTerm && a.Stdin != nil && xterm.IsTerminal(int(a.Stdin.Fd()))
	t.color = isTerm && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb"
	return t
}

func (t *term) paint(color, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// ask reads one line.
func (t *term) ask(prompt string) (string, error) {
	fmt.Fprint(t.err, prompt)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if err != nil && line == "" {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// askSecret reads one line without showing it.
func (t *term) askSecret(prompt string) (secret.Bytes, error) {
	if !t.interactive {
		return secret.Bytes{}, usage("the same command with --passphrase-fd 0", "there is no terminal to ask for a secret")
	}
	// Who sees the prompt may type at once: the echo is off by then.
	echo, err := echoOff(int(t.in.Fd()))
	if err != nil {
		return secret.Bytes{}, err
	}
	fmt.Fprint(t.err, prompt)
	raw, err := xterm.ReadPassword(int(t.in.Fd()))
	fmt.Fprintln(t.err)
	return secret.Take(raw), errors.Join(err, echo())
}

// confirm asks for the word yes. Return alone is no.
func (a *app) confirm(question string) error {
	if a.yes {
		return nil
	}
	if !a.term.interactive {
		return errConfirm
	}
	answer, err := a.term.ask(question + " Type yes to go on: ")
	if err != nil {
		return err
	}
	if answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// readSecretFD reads a secret up to its end or first line feed.
func readSecretFD(fd int, stdin *os.File) (secret.Bytes, error) {
	f := stdin
	if fd != 0 {
		f = os.NewFile(uintptr(fd), "passphrase")
	}
	if f == nil {
		return secret.Bytes{}, usage("", "file descriptor %d is not open", fd)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the passphrase from descriptor %d: %w", fd, err)
	}
	return trimLine(raw), nil
}

func trimLine(raw []byte) secret.Bytes {
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	s := secret.New(bytes.TrimSuffix(line, []byte("\r")))
	clear(raw)
	return s
}

// readSecret takes a secret from the terminal, or from stdin when that is none.
func (a *app) readSecret(prompt string) (secret.Bytes, error) {
	if a.term.interactive {
		return a.term.askSecret(prompt)
	}
	raw, err := io.ReadAll(io.LimitReader(a.Stdin, maxSecret))
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(raw)
	return secret.New(bytes.TrimSpace(raw)), nil
}

// logger writes diagnostics to stderr; --quiet keeps errors only.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.quiet {
		level = slog.LevelError
	}
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level}))
}

// lines reads lines of the terminal until ctx ends. The reader itself cannot
// be stopped while it waits for a key; it ends with the process.
func (t *term) lines(ctx context.Context) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		r := bufio.NewReader(t.in)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case out <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
