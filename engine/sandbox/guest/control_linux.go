package guest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"osaurus/engine/sandbox/wire"
)

// Bounds of one control session.
const (
	maxJobs   = 64       // commands and uploads at once
	maxUpload = 64 << 20 // bytes of one put or get
)

// session serves the control stream.
type session struct {
	conn   net.Conn
	users  *users
	p      Places
	reaper *reaper

	send sync.Mutex // one line at a time

	mu      sync.Mutex
	jobs    map[uint64]*job
	uploads map[uint64]*upload
	group   sync.WaitGroup
}

func newSession(c net.Conn, u *users, p Places, r *reaper) *session {
	return &session{conn: c, users: u, p: p, reaper: r, jobs: map[uint64]*job{}, uploads: map[uint64]*upload{}}
}

// serve answers until the host says shutdown or is gone. Then every command
// is killed.
func (s *session) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	defer s.group.Wait()
	defer s.killJobs()
	lines := wire.NewLineReader(s.conn)
	for {
		line, err := wire.ReadLine(lines)
		if errors.Is(err, io.EOF) {
			return errors.New("guest: the host is gone")
		}
		if err != nil {
			return err
		}
		r, err := wire.ParseRequest(line)
		if err != nil && r.ID == 0 {
			return err // the stream is out of step
		}
		if err != nil {
			s.reply(wire.Reply{ID: r.ID, Error: err.Error()})
			continue
		}
		if s.handle(ctx, r) {
			return nil
		}
	}
}

// handle runs one operation and reports whether it was the last.
func (s *session) handle(ctx context.Context, r wire.Request) (last bool) {
	var err error
	switch r.Op {
	case wire.UserAdd:
		err = s.users.add(r.User, r.UID)
	case wire.UserDel:
		err = s.users.remove(r.User)
	case wire.TokenPut:
		err = s.users.putToken(r.User, r.Token)
		clear(r.Token)
	case wire.TokenDel:
		err = s.users.removeToken(r.User)
	case wire.Exec:
		if err = s.exec(ctx, r); err == nil {
			return false // it answers itself
		}
	case wire.Kill:
		err = s.kill(r.Target, syscall.Signal(r.Signal))
	case wire.Put:
		var more bool
		if more, err = s.put(r); more {
			return false
		}
	case wire.Get:
		if err = s.get(r); err == nil {
			return false
		}
	case wire.Sync:
		unix.Sync()
	case wire.Shutdown:
		last = true
		s.killJobs()
		unix.Sync()
	}
	s.done(r.ID, err)
	return last
}

func (s *session) done(id uint64, err error) {
	if err != nil {
		s.reply(wire.Reply{ID: id, Error: err.Error()})
		return
	}
	s.reply(wire.Reply{ID: id, OK: true})
}

// reply sends a line. A host that is gone shows when the next line is read.
func (s *session) reply(r wire.Reply) {
	raw, err := json.Marshal(r)
	if err != nil {
		panic("guest: internal error: " + err.Error()) // strings and numbers always marshal
	}
	s.send.Lock()
	defer s.send.Unlock()
	_, _ = s.conn.Write(append(raw, '\n'))
}
