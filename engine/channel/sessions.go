package channel

import (
	"container/list"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/internal/base64url"
)

type sessionID [sidSize]byte

// session is the server's half.
type session struct {
	id      sessionID
	agent   address.Address
	source  string // whose share it counts against
	expires int64  // Unix seconds
	keys    *keys

	opened atomic.Bool // a call was authenticated

	mu     sync.Mutex // guards window
	window replayWindow

	place *list.Element // guarded by table.mu; nil once removed
}

// take marks seq as used and reports whether it was new.
func (s *session) take(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.take(seq)
}

// table is the server's sessions. A look-up takes no lock: it reads a map that
// nobody changes any more. Admission and removal, as rare as handshakes, put
// another map in its place. Safe for concurrent use.
type table struct {
	shards [shardCount]atomic.Pointer[shard]

	mu      sync.Mutex
	fresh   list.List // of *session that never opened a call, by expiry
	used    list.List // of *session that did, by expiry
	sources map[string]int
}

// shard is never changed once it stands in a table.
type shard map[sessionID]*session

func newTable() *table {
	t := &table{sources: make(map[string]int)}
	for i := range t.shards {
		t.shards[i].Store(new(shard))
	}
	return t
}

// shard spreads by the first byte: ids are random and ours.
func (t *table) shard(id sessionID) *atomic.Pointer[shard] { return &t.shards[id[0]] }

// get returns the session a wire sid names, nil when it is unknown or expired.
func (t *table) get(sid []byte, now time.Time) *session {
	var id sessionID
	if base64url.DecodeInto(id[:], sid) != nil {
		return nil
	}
	s := (*t.shard(id).Load())[id]
	if s == nil || s.expires <= now.Unix() {
		return nil
	}
	return s
}

// add admits s, after making room: expired sessions go, and then, of the
// source when its share is full or of all when the table is, first one that
// never opened a call, else the one nearest to expiry (PROTOCOL.md section 7).
func (t *table) add(s *session, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now)
	if t.sources[s.source] >= maxSourceShare {
		t.evictLocked(func(other *session) bool { return other.source == s.source })
	}
	if t.fresh.Len()+t.used.Len() >= maxSessions {
		t.evictLocked(func(*session) bool { return true })
	}
	insert(&t.fresh, s)
	t.sources[s.source]++
	t.replaceLocked(s.id, func(all shard) { all[s.id] = s })
}

// replaceLocked changes a copy of the shard of id and puts it in its place.
func (t *table) replaceLocked(id sessionID, change func(shard)) {
	place := t.shard(id)
	all := make(shard, len(*place.Load())+1)
	maps.Copy(all, *place.Load())
	change(all)
	place.Store(&all)
}

// touch notes that s opened a call.
func (t *table) touch(s *session) {
	if s.opened.Load() || !s.opened.CompareAndSwap(false, true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.place != nil {
		t.fresh.Remove(s.place)
		insert(&t.used, s)
	}
}

// member returns the session at e; the lists hold nothing else.
func member(e *list.Element) *session {
	s, _ := e.Value.(*session)
	return s
}

// insert keeps l in order of expiry; nearly always s goes last.
func insert(l *list.List, s *session) {
	at := l.Back()
	for at != nil && member(at).expires > s.expires {
		at = at.Prev()
	}
	if at == nil {
		s.place = l.PushFront(s)
	} else {
		s.place = l.InsertAfter(s, at)
	}
}

func (t *table) evictLocked(match func(*session) bool) {
	for _, l := range []*list.List{&t.fresh, &t.used} {
		for e := l.Front(); e != nil; e = e.Next() {
			if s := member(e); match(s) {
				t.removeLocked(l, s)
				return
			}
		}
	}
}

func (t *table) removeLocked(l *list.List, s *session) {
	l.Remove(s.place)
	s.place = nil
	if t.sources[s.source]--; t.sources[s.source] == 0 {
		delete(t.sources, s.source)
	}
	t.replaceLocked(s.id, func(all shard) { delete(all, s.id) })
	s.keys.destroy()
}

// remove ends the sessions that match.
func (t *table) remove(match func(*session) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range []*list.List{&t.fresh, &t.used} {
		for e := l.Front(); e != nil; {
			next := e.Next()
			if s := member(e); match(s) {
				t.removeLocked(l, s)
			}
			e = next
		}
	}
}

// sweepLocked ends expired sessions. Both lists are in order of expiry, so it
// stops at the first that lives.
func (t *table) sweepLocked(now time.Time) {
	for _, l := range []*list.List{&t.fresh, &t.used} {
		for e := l.Front(); e != nil; e = l.Front() {
			s := member(e)
			if s.expires > now.Unix() {
				break
			}
			t.removeLocked(l, s)
		}
	}
}

func (t *table) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now)
}
