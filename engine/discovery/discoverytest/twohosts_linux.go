package discoverytest

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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"osaurus/engine/discovery"
)

// Side is a host of one kind, in a network namespace of its own. Start, Do and
// Stop may be nil.
type Side struct {
	Advertiser discovery.Advertiser
	Browser    discovery.Browser
	// Start is called once the interface of that name is up.
	Start func(iface string) error
	// Do runs an operation of this kind, as Far.Do asks for it.
	Do   func(op string) error
	Stop func() error
}

var (
	near = flag.Bool("discoverytest.near", false, "this is the near host of a test")
	far  = flag.String("discoverytest.far", "", "this is a far host of this kind")
)

// Main is the TestMain of a package that calls TwoHosts. It returns when this
// process is no far host.
func Main(kinds map[string]func() Side) {
	flag.Parse()
	if *far == "" {
		return
	}
	if err := serve(kinds[*far](), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "far host:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TwoHosts gives test two hosts in network namespaces that are joined by
// nothing but a pair of virtual interfaces. It runs the calling test a second
// time, in a process of its own; name is that test's.
func TwoHosts(t *testing.T, name string, here Side, kind string, test func(t *testing.T, here Side, there *Far)) {
	t.Helper()
	if *near {
		withFar(t, here, kind, test)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the ip command (Debian package iproute2)")
	}
	out, err := again(t.Context(), "-test.v", "-test.run", "^"+name+"$", "-discoverytest.near").Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// again runs this binary in namespaces of its own.
func again(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

func withFar(t *testing.T, here Side, kind string, test func(t *testing.T, here Side, there *Far)) {
	cmd := again(t.Context(), "-discoverytest.far", kind)
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
	there := &Far{in: in, out: bufio.NewReader(out)}
	defer func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}()
	if err := there.answer(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(run("link", "add", "near", "type", "veth", "peer", "name", "far"), run("link", "set", "far", "netns", strconv.Itoa(cmd.Process.Pid)), up("near", "10.78.0.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := there.tell(order{Up: true}); err != nil {
		t.Fatal(err)
	}
	if here.Start != nil {
		if err := here.Start("near"); err != nil {
			t.Fatal(err)
		}
	}
	test(t, here, there)
	if here.Stop != nil {
		if err := here.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func run(args ...string) error {
	if text, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, text)
	}
	return nil
}

func up(iface, address string) error {
	return errors.Join(run("addr", "add", address, "dev", iface), run("link", "set", "lo", "up"), run("link", "set", iface, "up"), run("route", "add", "224.0.0.0/4", "dev", iface))
}

// order is one line to the far host, which answers each with one.
type order struct {
	Up      bool
	Publish []discovery.Instance
	Close   bool
	Do      string
}

// Far is the host in the other namespace: a discovery.Advertiser.
type Far struct {
	in  io.Writer
	out *bufio.Reader
}

func (f *Far) tell(o order) error {
	if err := json.NewEncoder(f.in).Encode(o); err != nil {
		return err
	}
	return f.answer()
}

func (f *Far) answer() error {
	line, err := f.out.ReadString('\n')
	switch {
	case err != nil:
		return fmt.Errorf("the far host is gone: %w", err)
	case line != "ok\n":
		return fmt.Errorf("the far host says %q", line)
	}
	return nil
}

// Publish implements discovery.Advertiser.
func (f *Far) Publish(_ context.Context, want []discovery.Instance) error {
	return f.tell(order{Publish: slices.Clone(want)})
}

// Close implements discovery.Advertiser.
func (f *Far) Close() error { return f.tell(order{Close: true}) }

// Do runs an operation of the far side's kind.
func (f *Far) Do(op string) error { return f.tell(order{Do: op}) }

// serve is the far host's main.
func serve(s Side, in io.Reader, out io.Writer) (err error) {
	defer func() {
		if s.Stop != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if _, err := fmt.Fprintln(out, "ok"); err != nil {
		return err
	}
	for dec := json.NewDecoder(in); ; {
		var o order
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer := "ok"
		if err := s.obey(o); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
}

func (s Side) obey(o order) error {
	switch {
	case o.Up:
		if err := up("far", "10.78.0.2/24"); err != nil || s.Start == nil {
			return err
		}
		return s.Start("far")
	case o.Close:
		return s.Advertiser.Close()
	case o.Do != "":
		return s.Do(o.Do)
	}
	return s.Advertiser.Publish(context.Background(), o.Publish)
}
