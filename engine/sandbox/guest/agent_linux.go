package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"osaurus/engine/sandbox/wire"
)

// ProxyAddress is where programs of the guest find the egress proxy.
const ProxyAddress = "127.0.0.1:3128"

// Places is where osaurus-guest keeps things. The zero value of a field is
// its place in a sandbox; tests use others.
type Places struct {
	Etc       string // passwd and group
	Run       string // token files
	Workspace string // agents/<name> and shared
	Socket    string // of the bridge
	Proxy     string // address of the proxy's listener
}

func (p Places) withDefaults() Places {
	for _, d := range []struct {
		field *string
		place string
	}{{&p.Etc, "/etc"}, {&p.Run, TokenDir}, {&p.Workspace, "/workspace"}, {&p.Socket, BridgeSocket}, {&p.Proxy, ProxyAddress}} {
		if *d.field == "" {
			*d.field = d.place
		}
	}
	return p
}

// Run is the first process of a sandbox. It relays streams and serves the
// control stream until the host ends it or goes away: a guest without its host
// has no reason to live. It needs root.
func Run(ctx context.Context, b wire.Boot, p Places) error {
	p = p.withDefaults()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host, err := dialer(b.Transport)
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }() // the host closes its side too
	if b.Shared() && !b.Init {          // Boot hides them itself
		if err := hideProcesses(); err != nil {
			return err
		}
	}
	users, err := openUsers(p)
	if err != nil {
		return err
	}
	relay, err := listenBridge(p.Socket)
	if err != nil {
		return err
	}
	listeners := []net.Listener{relay}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		serve(ctx, relay, host, func(c net.Conn) (string, error) { return bridgePreface(b.Sandbox, c) })
	})
	if b.Proxy {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.Proxy)
		if err != nil {
			_ = relay.Close() // nothing was served yet
			return err
		}
		listeners = append(listeners, l)
		preface := wire.Preface{Kind: wire.Proxy, Sandbox: b.Sandbox}.String()
		group.Go(func() { serve(ctx, l, host, func(net.Conn) (string, error) { return preface, nil }) })
	}
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // ends its serve
		}
	}()
	reaper := newReaper()
	group.Go(func() { reaper.run(ctx) })
	control, err := host.Dial(ctx)
	if err != nil {
		return fmt.Errorf("guest: the host does not answer: %w", err)
	}
	defer func() { _ = control.Close() }()
	if _, err := control.Write([]byte(wire.Preface{Kind: wire.Control, Nonce: b.Nonce}.String())); err != nil {
		return err
	}
	err = newSession(control, users, p, reaper).serve(ctx)
	cancel()
	return err
}

// ReadBoot reads the boot file, which must be root's alone, and removes it
// where it can be removed.
func ReadBoot(path string) (wire.Boot, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return wire.Boot{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return wire.Boot{}, errors.New("guest: the boot file is not root's alone")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return wire.Boot{}, err
	}
	b, err := wire.ParseBoot(raw)
	if err == nil {
		_ = os.Remove(path) // a mount cannot be removed; root alone reads it
	}
	return b, err
}

// listenBridge opens the socket that every user may connect to.
func listenBridge(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // the relay attests who connects
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// home is where a user's files are.
func (p Places) home(name string) string {
	return filepath.Join(p.Workspace, "agents", stem(name))
}
