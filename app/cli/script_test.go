package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"osaurus/app/cli"
	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/sandbox"
)

// main is the program as the scripts run it: the real one, without discovery,
// which would speak on the network of the machine that tests.
func osaurus() {
	os.Exit(cli.Main(context.Background(), cli.System{
		Program: "osaurus", Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Ports: func() engine.Ports {
			p := bridge.Portable()
			p.Advertiser, p.Browser = nil, nil
			if libexec := os.Getenv("SANDBOX_LIBEXEC"); libexec != "" {
				p.Sandbox = func(home string) []sandbox.Driver { return bridge.SandboxDrivers(home, libexec) }
			}
			return p
		},
	}))
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"osaurus": osaurus})
}

// patience bounds how long a script waits for a host.
const patience = 2 * time.Minute

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		// Whether a script can start sandboxes, with what "make sandbox" built.
		Condition: func(cond string) (bool, error) {
			if cond != "sandbox" {
				return false, errors.New("no such condition")
			}
			return runtime.GOOS == "linux" && exists(filepath.Join(libexec(), "osaurus-runsc")), nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("LIBEXEC", libexec())
			// A control socket's path is short, so homes are too.
			short, err := os.MkdirTemp("", "osr")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(short) })
			env.Setenv("HOME", short)
			env.Setenv("H", short)
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Values[relayKey{}] = new(func())
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"host": host, "page": page, "relay": relay, "approve": approve, "nosecrets": noSecrets, "first": first, "exits": exits,
		},
	})
}

// program finds the osaurus that testscript put on the scripts' path.
func program(ts *testscript.TestScript) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, "osaurus"); exists(path) {
			return path
		}
	}
	ts.Fatalf("osaurus is not on the path")
	return ""
}

// libexec is where "make sandbox" puts what sandboxes boot from.
func libexec() string {
	path, err := filepath.Abs("../../build/libexec")
	if err != nil {
		return ""
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func command(ts *testscript.TestScript, args ...string) *exec.Cmd {
	cmd := exec.Command(program(ts), args...)
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "GORACE=" + ts.Getenv("GORACE")}
	cmd.Dir = ts.Getenv("WORK")
	return cmd
}

// host starts one in the background: "host HOME NAME" sets NAME_URL when it
// serves, and stops it when the script ends, unless HOME/stopped says that the
// script did. What it prints is checked then.
func host(ts *testscript.TestScript, _ bool, args []string) {
	cmd := command(ts, "--home", args[0], "--json", "serve", "--port", "0")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	home := args[0]
	var log bytes.Buffer
	cmd.Stderr = &log
	ts.Check(cmd.Start())
	lines := bufio.NewReader(out)
	var started struct{ URL string }
	line, err := lines.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &started) != nil || started.URL == "" {
		_ = cmd.Wait()
		ts.Fatalf("the host did not start: %s%s", line, &log)
	}
	ts.Setenv(args[1]+"_URL", started.URL)
	stop := sync.OnceFunc(func() {
		if !exists(filepath.Join(home, "stopped")) {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		}
		_, err := io.Copy(io.Discard, lines)
		ts.Check(err)
		ts.Check(cmd.Wait())
		if strings.Contains(log.String(), "panic") {
			ts.Fatalf("the host says %s", &log)
		}
	})
	ts.Defer(stop)
}

// page opens the settings page of a home, until the script ends.
func page(ts *testscript.TestScript, _ bool, args []string) {
	cmd := command(ts, "--home", args[0], "--json", "settings", "--no-open")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	var log bytes.Buffer
	cmd.Stderr = &log
	ts.Check(cmd.Start())
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"event":"settings"`) {
		_ = cmd.Wait()
		ts.Fatalf("the page did not open: %s%s", line, &log)
	}
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // the script may have stopped it
		_, err := io.Copy(io.Discard, lines)
		ts.Check(err)
		if err := cmd.Wait(); err != nil {
			ts.Fatalf("the page ended with %v: %s", err, &log)
		}
	})
}

// relay starts one in the background and sets RELAY to its domain; "relay stop"
// ends it. It is drained when the script ends.
func relay(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 1 {
		stop, ok := ts.Value(relayKey{}).(*func())
		if !ok || *stop == nil {
			ts.Fatalf("no relay runs")
		}
		(*stop)()
		return
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	at := free.Addr().String()
	ts.Check(free.Close())
	domain := "localhost" + at[strings.LastIndexByte(at, ':'):]
	cmd := command(ts, "relay", "serve", "--listen", at, "--domain", domain)
	talk, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewReader(talk)
	line, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(line, at) {
		ts.Fatalf("the relay did not start: %s %v", line, err)
	}
	ts.Setenv("RELAY", domain)
	stop := sync.OnceFunc(func() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		_, err := io.Copy(io.Discard, lines)
		ts.Check(err)
		ts.Check(cmd.Wait())
	})
	*ts.Value(relayKey{}).(*func()) = stop //nolint:errcheck // set up below
	ts.Defer(stop)
}

type relayKey struct{}

// approve answers the next request to pair: "approve HOME VALIDITY" returns
// when it listens, and answers in the background.
func approve(ts *testscript.TestScript, _ bool, args []string) {
	cmd := command(ts, "--home", args[0], "--json", "approvals", "watch")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	events := json.NewDecoder(out)
	ts.Check(events.Decode(&struct{}{})) // it is attached
	answered := make(chan string, 1)
	go func() {
		var e struct{ Current *struct{ ID string } }
		for e.Current == nil {
			if err := events.Decode(&e); err != nil {
				answered <- err.Error()
				return
			}
		}
		verb := []string{"approve", e.Current.ID, "--validity", args[1]}
		if args[1] == "deny" {
			verb = []string{"deny", e.Current.ID}
		}
		text, err := command(ts, append([]string{"--home", args[0], "approvals"}, verb...)...).CombinedOutput()
		_ = cmd.Process.Signal(os.Interrupt) // nobody is there to ask any more
		if err != nil {
			answered <- string(text)
			return
		}
		answered <- ""
	}()
	ts.Defer(func() {
		select {
		case problem := <-answered:
			if problem != "" {
				ts.Fatalf("approving: %s", problem)
			}
		case <-time.After(patience):
			ts.Fatalf("nobody asked to pair")
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
}

// first sets a variable to a member of the last output's first JSON document,
// or of its nth element: "first VAR member [n]".
func first(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	if list, ok := v.([]any); ok {
		at := 0
		if len(args) > 2 {
			at = int(args[2][0] - '0')
		}
		if at >= len(list) {
			ts.Fatalf("only %d elements", len(list))
		}
		v = list[at]
	}
	text, ok := v.(map[string]any)[args[1]].(string)
	if !ok {
		ts.Fatalf("no member %s", args[1])
	}
	ts.Setenv(args[0], text)
}

// exits runs a command and wants its exit code: "exits CODE args...". Its
// output is what the next stdout and stderr look at.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(program(ts), args[1:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("it exits with %d, not %s", got, args[0])
	}
}

// noSecrets greps a tree for words that must not stand there in clear.
func noSecrets(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(filepath.WalkDir(args[0], func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, word := range args[1:] {
			if bytes.Contains(raw, []byte(word)) {
				ts.Fatalf("%s holds %q", path, word)
			}
		}
		return err
	}))
}
