package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/address"
	"osaurus/engine/secret"
)

// The library keeps looking for a Redis that is gone, and ends within a second
// of Close.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"), goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// program is a real Redis on a port of its own.
type program struct {
	t    testing.TB
	path string
	port int
	cmd  *exec.Cmd
}

const password = "a password of this test"

// start runs redis-server, or skips the test by its name.
func start(t testing.TB) *program {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, path: path, port: l.Addr().(*net.TCPAddr).Port}
	_ = l.Close()
	p.run()
	t.Cleanup(p.kill)
	return p
}

func (p *program) run() {
	p.t.Helper()
	p.cmd = exec.Command(p.path, "--port", fmt.Sprint(p.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", p.t.TempDir(), "--requirepass", password)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		var log strings.Builder
		buf := make([]byte, 4096)
		for said := false; ; {
			n, err := out.Read(buf)
			log.Write(buf[:n])
			if !said && strings.Contains(log.String(), "Ready to accept connections") {
				said = true
				ready <- true
			}
			if err != nil {
				if !said {
					ready <- false
				}
				_, _ = io.Copy(io.Discard, out)
				return
			}
		}
	}()
	if !<-ready {
		p.t.Fatal("redis-server did not start")
	}
}

func (p *program) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *program) url() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", p.port) }

func (p *program) open(machine, at string) *Directory {
	p.t.Helper()
	word := secret.New([]byte(password))
	defer word.Destroy()
	d, err := Open(Options{URL: p.url(), Password: word, Machine: machine, InternalURL: at})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = d.Close() })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDirectory: claims, takeovers, refreshes and releases of two relays.
func TestDirectory(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.open("one", "http://one"), p.open("two", "http://two")
	ctx := t.Context()
	a, b := address.Address{1}, address.Address{2}
	owner := func(d *Directory, x address.Address) string {
		machine, at, err := d.Owner(ctx, x)
		must(t, err)
		return machine + " " + at
	}
	if got := owner(one, a); got != " " {
		t.Errorf("nobody: %q", got)
	}
	must(t, one.Announce(ctx))
	must(t, one.Claim(ctx, []address.Address{a, b}))
	if got := owner(two, a); got != "one http://one" {
		t.Errorf("%q", got)
	}
	if got := owner(one, a); got != "one " {
		t.Errorf("its own: %q", got)
	}
	for key, most := range map[string]time.Duration{ownerKey(a): ownerLifetime, placeKey("one"): ownerLifetime, seenKey(a): seenLifetime} {
		if ttl := one.c.TTL(ctx, key).Val(); ttl <= most-5*time.Second || ttl > most {
			t.Errorf("%s stands for %s", key, ttl)
		}
	}
	// The newest owns, and the other learns it when it refreshes.
	must(t, two.Claim(ctx, []address.Address{a}))
	one.c.Expire(ctx, ownerKey(b), 5*time.Second)
	lost, err := one.Refresh(ctx, []address.Address{a, b})
	must(t, err)
	if !slices.Equal(lost, []address.Address{a}) || owner(one, a) != "two " {
		t.Errorf("lost %v, %q", lost, owner(one, a))
	}
	if ttl := one.c.TTL(ctx, ownerKey(b)).Val(); ttl < ownerLifetime-5*time.Second {
		t.Errorf("refreshed to %s", ttl)
	}
	// What is gone is taken again; what is another's is not released.
	must(t, one.c.Del(ctx, ownerKey(b)).Err())
	_, err = one.Refresh(ctx, []address.Address{b})
	must(t, err)
	must(t, one.Release(ctx, []address.Address{a, b}))
	if owner(one, a) != "two " || owner(two, b) != " " {
		t.Errorf("after the release: %q, %q", owner(one, a), owner(two, b))
	}
	seen, err := one.Presence(ctx, []address.Address{a, b, {3}})
	must(t, err)
	if !seen[a].Online || seen[b].Online || seen[b].LastSeen.IsZero() || seen[address.Address{3}].Online || !seen[address.Address{3}].LastSeen.IsZero() {
		t.Errorf("%+v", seen)
	}
	must(t, one.Withdraw(ctx))
	if one.c.Exists(ctx, placeKey("one")).Val() != 0 {
		t.Error("still announced")
	}
}

// TestErrors: a Redis that is not there fails soon, in every operation.
func TestErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	at := l.Addr().String()
	_ = l.Close()
	d, err := Open(Options{URL: "redis://" + at, Machine: "m"})
	must(t, err)
	defer d.Close()
	all := []address.Address{{1}}
	for name, f := range map[string]func(context.Context) error{
		"announce": d.Announce, "withdraw": d.Withdraw,
		"claim":    func(ctx context.Context) error { return d.Claim(ctx, all) },
		"refresh":  func(ctx context.Context) error { _, err := d.Refresh(ctx, all); return err },
		"release":  func(ctx context.Context) error { return d.Release(ctx, all) },
		"owner":    func(ctx context.Context) error { _, _, err := d.Owner(ctx, all[0]); return err },
		"presence": func(ctx context.Context) error { _, err := d.Presence(ctx, all); return err },
	} {
		if f(t.Context()) == nil {
			t.Errorf("%s is no error", name)
		}
	}
	for _, url := range []string{"redis://:word@x", "redis://user:word@x"} {
		if _, err := Open(Options{URL: url}); !errors.Is(err, errPassword) {
			t.Errorf("a password in the URL: %v", err)
		}
	}
	for _, url := range []string{"http://x", "redis://user@x", "://:word"} {
		if _, err := Open(Options{URL: url}); err == nil || strings.Contains(err.Error(), "word@") || strings.Contains(err.Error(), ":word") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
