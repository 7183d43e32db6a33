package mdns

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"osaurus/engine/discovery"
	"osaurus/engine/discovery/discoverytest"
)

var role = flag.String("role", "", "what a re-executed test binary is: browser or advertiser")

func TestMain(m *testing.M) {
	flag.Parse()
	if *role == "advertiser" {
		if err := advertise(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// again runs this binary in a network namespace of its own.
func again(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

// TestTwoHosts runs the suite between two network namespaces that are joined
// by nothing but a pair of virtual interfaces.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	if *role == "browser" {
		browseAcross(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the ip command (Debian package iproute2)")
	}
	cmd := again(t.Context(), "-test.run", "^TestTwoHosts$", "-role", "browser")
	out, err := cmd.Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func browseAcross(t *testing.T) {
	cmd := again(t.Context(), "-role", "advertiser")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far := &remote{in: in, out: bufio.NewReader(out)}
	defer func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}()
	if err := far.answer(); err != nil { // it is up
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"link", "add", "near", "type", "veth", "peer", "name", "far"},
		{"link", "set", "far", "netns", strconv.Itoa(cmd.Process.Pid)},
		{"addr", "add", "10.78.0.1/24", "dev", "near"}, {"link", "set", "lo", "up"}, {"link", "set", "near", "up"},
	} {
		if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, text)
		}
	}
	if err := far.do(command{Up: true}); err != nil {
		t.Fatal(err)
	}
	discoverytest.Run(t, far, New(Options{}))
}

// command is one line to the advertising process, which answers each with one.
type command struct {
	Up      bool
	Publish []discovery.Instance
	Close   bool
}

// remote is the advertiser in the other namespace.
type remote struct {
	in  io.Writer
	out *bufio.Reader
}

func (r *remote) do(c command) error {
	if err := json.NewEncoder(r.in).Encode(c); err != nil {
		return err
	}
	return r.answer()
}

func (r *remote) answer() error {
	line, err := r.out.ReadString('\n')
	if err != nil || line != "ok\n" {
		return fmt.Errorf("the advertiser says %q, %w", line, err)
	}
	return nil
}

func (r *remote) Publish(_ context.Context, want []discovery.Instance) error {
	return r.do(command{Publish: want})
}

func (r *remote) Close() error { return r.do(command{Close: true}) }

// advertise is the other side's main.
func advertise(in io.Reader, out io.Writer) error {
	m := New(Options{})
	if _, err := fmt.Fprintln(out, "ok"); err != nil {
		return err
	}
	for dec := json.NewDecoder(in); ; {
		var c command
		if err := dec.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		switch {
		case c.Up:
			for _, args := range [][]string{{"addr", "add", "10.78.0.2/24", "dev", "far"}, {"link", "set", "lo", "up"}, {"link", "set", "far", "up"}} {
				err = errors.Join(err, exec.Command("ip", args...).Run())
			}
		case c.Close:
			err = m.Close()
		default:
			err = m.Publish(context.Background(), c.Publish)
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, "ok"); err != nil {
			return err
		}
	}
}
