package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
)

// ErrGuestGone says that the control stream ended.
var ErrGuestGone = errors.New("sandbox: the guest is gone")

// Guest is the host's end of a control stream: users, token files, files and
// commands. It is safe for concurrent use.
type Guest struct {
	conn net.Conn
	done chan struct{}

	send sync.Mutex // one line at a time

	mu    sync.Mutex
	next  uint64
	calls map[uint64]func(wire.Reply)
}

// NewGuest takes a control stream after its first line. Close ends it.
func NewGuest(c net.Conn) *Guest {
	g := &Guest{conn: c, done: make(chan struct{}), calls: map[uint64]func(wire.Reply){}}
	go g.read()
	return g
}

// Close ends the stream. A guest whose control stream ended ends itself.
func (g *Guest) Close() error {
	err := g.conn.Close()
	<-g.done
	return err
}

// Done is closed when the stream has ended.
func (g *Guest) Done() <-chan struct{} { return g.done }

func (g *Guest) read() {
	defer close(g.done)
	lines := wire.NewLineReader(g.conn)
	for {
		line, err := wire.ReadLine(lines)
		if err != nil {
			break
		}
		r, err := wire.ParseReply(line)
		if err != nil {
			break // out of step
		}
		g.mu.Lock()
		call := g.calls[r.ID]
		if !r.More {
			delete(g.calls, r.ID)
		}
		g.mu.Unlock()
		if call != nil {
			call(r)
		}
	}
	_ = g.conn.Close() // also when the guest speaks nonsense
}

// begin registers a call and returns its id.
func (g *Guest) begin(on func(wire.Reply)) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	g.calls[g.next] = on
	return g.next
}

func (g *Guest) write(r wire.Request) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	defer clear(raw) // it may hold a token
	g.send.Lock()
	defer g.send.Unlock()
	if _, err := g.conn.Write(raw); err != nil {
		return fmt.Errorf("%w: %w", ErrGuestGone, err)
	}
	return nil
}

// call sends requests of one id and waits for the last reply; on gets those
// before it. cancel, if any, runs when ctx ends first, and the wait goes on.
func (g *Guest) call(ctx context.Context, on func(wire.Reply), cancel func(id uint64, over <-chan struct{}), requests ...wire.Request) (wire.Reply, error) {
	last := make(chan wire.Reply, 1)
	id := g.begin(func(r wire.Reply) {
		if r.More {
			on(r)
			return
		}
		last <- r
	})
	for _, r := range requests {
		r.ID = id
		if err := g.write(r); err != nil {
			return wire.Reply{}, err
		}
	}
	over := make(chan struct{})
	defer close(over)
	ended := ctx.Done()
	for {
		select {
		case r := <-last:
			if !r.OK {
				return r, guestError(r.Error)
			}
			return r, nil
		case <-g.done:
			return wire.Reply{}, ErrGuestGone
		case <-ended:
			if cancel == nil {
				g.forget(id)
				return wire.Reply{}, ctx.Err()
			}
			ended = nil
			go cancel(id, over)
		}
	}
}

func (g *Guest) forget(id uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, id)
}

// guestError is a text that whoever rules the guest may have written.
func guestError(text string) error {
	return errors.New(strings.Map(oneLine, strings.ToValidUTF8(text[:min(len(text), maxGuestError)], "")))
}

const maxGuestError = 300 // bytes

func (g *Guest) simple(ctx context.Context, r wire.Request) error {
	_, err := g.call(ctx, func(wire.Reply) {}, nil, r)
	return err
}

// AddUser makes a user with its home.
func (g *Guest) AddUser(ctx context.Context, name string, uid uint32) error {
	return g.simple(ctx, wire.Request{Op: wire.UserAdd, User: name, UID: uid})
}

// RemoveUser ends a user: token file, processes, entry and home.
func (g *Guest) RemoveUser(ctx context.Context, name string) error {
	return g.simple(ctx, wire.Request{Op: wire.UserDel, User: name})
}

// PutToken writes a user's token file.
func (g *Guest) PutToken(ctx context.Context, name string, token secret.Bytes) error {
	return g.simple(ctx, wire.Request{Op: wire.TokenPut, User: name, Token: token.Expose()})
}

// RemoveToken removes a user's token file.
func (g *Guest) RemoveToken(ctx context.Context, name string) error {
	return g.simple(ctx, wire.Request{Op: wire.TokenDel, User: name})
}

// Sync writes the guest's file systems out.
func (g *Guest) Sync(ctx context.Context) error { return g.simple(ctx, wire.Request{Op: wire.Sync}) }

// Shutdown asks the guest to end.
func (g *Guest) Shutdown(ctx context.Context) error {
	return g.simple(ctx, wire.Request{Op: wire.Shutdown})
}

// Put writes a file of a user; user "" is root. Missing directories are made.
func (g *Guest) Put(ctx context.Context, user, path string, mode fs.FileMode, data []byte) error {
	var pieces []wire.Request
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), wire.MaxChunk)
		pieces = append(pieces, wire.Request{Op: wire.Put, User: user, Path: path, Mode: uint32(mode.Perm()), Data: data[:n], More: n < len(data)})
		data = data[n:]
	}
	_, err := g.call(ctx, func(wire.Reply) {}, nil, pieces...)
	return err
}

// MaxDownload bounds a file that Get reads, in bytes (PROTOCOL.md, section 6).
const MaxDownload = 64 << 20

// Get reads a file of a user; user "" is root.
func (g *Guest) Get(ctx context.Context, user, path string) ([]byte, fs.FileMode, error) {
	return g.get(ctx, user, path, MaxDownload)
}

// get is Get with a limit in bytes, which holds whatever the guest says.
func (g *Guest) get(ctx context.Context, user, path string, limit int) ([]byte, fs.FileMode, error) {
	var data []byte
	size := 0
	last, err := g.call(ctx, func(r wire.Reply) {
		if size += len(r.Data); size <= limit {
			data = append(data, r.Data...)
		}
	}, nil, wire.Request{Op: wire.Get, User: user, Path: path})
	if err != nil {
		return nil, 0, err
	}
	if size+len(last.Data) > limit {
		return nil, 0, fmt.Errorf("sandbox: the file has more than %d bytes", limit)
	}
	return append(data, last.Data...), fs.FileMode(last.Mode), nil
}

// Command is what Exec runs.
type Command struct {
	User  string // "" is root
	Argv  []string
	Env   []string // NAME=value, over the user's own
	Dir   string   // "" is the user's home
	Stdin []byte
	Idle  time.Duration // ended after this long without output; 0 never
}

// Shell returns a command line for a POSIX shell.
func Shell(user, line string) Command {
	return Command{User: user, Argv: []string{"/bin/sh", "-c", line}}
}

// Exit is how a command ended.
type Exit struct {
	Code     int    // 128+n for signal n
	KilledBy string // "idle", "user" or ""
}

// Exec runs a command and passes its output to out, stream 1 or 2, in the
// order it came. When ctx ends the command gets SIGTERM, and after KillDelay
// SIGKILL; Exec returns when it has ended.
func (g *Guest) Exec(ctx context.Context, c Command, out func(stream int, data []byte)) (Exit, error) {
	last, err := g.call(ctx, func(r wire.Reply) { out(r.Stream, r.Data) }, g.terminate,
		wire.Request{Op: wire.Exec, User: c.User, Argv: c.Argv, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin, Idle: c.Idle.Milliseconds()})
	return Exit{last.Exit, last.KilledBy}, err
}

// terminate ends a command politely, then surely.
func (g *Guest) terminate(id uint64, over <-chan struct{}) {
	wait := time.NewTimer(KillDelay)
	defer wait.Stop()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if g.simple(context.Background(), wire.Request{Op: wire.Kill, Target: id, Signal: int(sig)}) != nil {
			return // it has ended, or the guest has
		}
		select {
		case <-wait.C:
		case <-over:
			return
		}
	}
}
