package channel

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"osaurus/engine/address"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
)

var epoch = time.Unix(1_800_000_000, 0)

// newSession numbers sessions; its keys work but are those of no handshake.
func newSession(n int, source string, expires time.Time) *session {
	var id sessionID
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15) // spreads over the shards
	return &session{
		id: id, source: source, expires: expires.Unix(), agent: address.Address{byte(n)},
		keys: &keys{sid: base64url.Encode(id[:]), requests: newSealed(make([]byte, keySize)), replies: secret.New(make([]byte, keySize))},
	}
}

func (s *session) text() []byte { return []byte(s.keys.sid) }

func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fresh.Len() + t.used.Len()
}

func TestSessionLifetime(t *testing.T) {
	t.Parallel()
	tab := newTable()
	s := newSession(1, "a", epoch.Add(sessionLifetime))
	tab.add(s, epoch)
	for _, x := range []struct {
		after time.Duration
		known bool
	}{{0, true}, {sessionLifetime - time.Second, true}, {sessionLifetime, false}, {sessionLifetime + time.Hour, false}, {-24 * time.Hour, true}} {
		if got := tab.get(s.text(), epoch.Add(x.after)) != nil; got != x.known {
			t.Errorf("after %v: known is %v", x.after, got)
		}
	}
	tab.sweep(epoch.Add(sessionLifetime - time.Second))
	if tab.size() != 1 {
		t.Error("swept while it lived")
	}
	tab.sweep(epoch.Add(sessionLifetime))
	if tab.size() != 0 || len(tab.sources) != 0 || s.keys.cipher() != nil {
		t.Error("an expired session was kept")
	}
}

func TestSessionIDsAreExact(t *testing.T) {
	t.Parallel()
	tab := newTable()
	s := newSession(1, "a", epoch.Add(sessionLifetime))
	tab.add(s, epoch)
	for _, sid := range []string{"", "bogus", s.keys.sid[:21], s.keys.sid + "A", s.keys.sid[:21] + "\n", "AAAAAAAAAAAAAAAAAAAAAA"} {
		if tab.get([]byte(sid), epoch) != nil {
			t.Errorf("%q is known", sid)
		}
	}
	if tab.get([]byte(s.keys.sid+"=="), epoch) != s {
		t.Error("padding is tolerated everywhere else")
	}
}

// TestSourceShare: the 65th session of a source takes the place of one of its
// own, and leaves others alone.
func TestSourceShare(t *testing.T) {
	t.Parallel()
	tab := newTable()
	other := newSession(1000, "b", epoch.Add(time.Minute))
	tab.add(other, epoch)
	all := make([]*session, maxSourceShare+1)
	for i := range all {
		all[i] = newSession(i, "a", epoch.Add(sessionLifetime+time.Duration(i)*time.Second))
	}
	for _, s := range all[:maxSourceShare] {
		tab.add(s, epoch)
	}
	for _, s := range all[:maxSourceShare] {
		if tab.get(s.text(), epoch) == nil {
			t.Fatal("evicted within the share")
		}
	}
	tab.touch(all[0]) // the nearest to expiry, but in use
	tab.add(all[maxSourceShare], epoch)
	if tab.get(all[1].text(), epoch) != nil {
		t.Error("the unused session nearest to expiry was kept")
	}
	for _, s := range []*session{all[0], all[2], all[maxSourceShare], other} {
		if tab.get(s.text(), epoch) == nil {
			t.Error("another session was evicted")
		}
	}
	if tab.sources["a"] != maxSourceShare || tab.size() != maxSourceShare+1 {
		t.Errorf("%d of the source, %d in all", tab.sources["a"], tab.size())
	}
}

// fill adds maxSessions sessions of many sources, in order of expiry.
func fill(tab *table) []*session {
	all := make([]*session, maxSessions)
	for i := range all {
		all[i] = newSession(i, fmt.Sprint(i/maxSourceShare), epoch.Add(time.Minute+time.Duration(i)*time.Second))
		tab.add(all[i], epoch)
	}
	return all
}

// TestTableIsBounded: the 4,097th session takes the place of one that never
// opened a call; when all did, of the one nearest to expiry.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	tab := newTable()
	all := fill(tab)
	if tab.size() != maxSessions {
		t.Fatalf("%d sessions before the limit", tab.size())
	}
	for i, s := range all {
		if i != 1234 {
			tab.touch(s)
		}
	}
	tab.add(newSession(-1, "new", epoch.Add(sessionLifetime)), epoch)
	if tab.get(all[1234].text(), epoch) != nil || tab.get(all[0].text(), epoch) == nil {
		t.Error("the one that never opened a call goes first")
	}
	tab.touch(tab.get(newSession(-1, "", epoch).text(), epoch))
	tab.add(newSession(-2, "new", epoch.Add(sessionLifetime)), epoch)
	if tab.get(all[0].text(), epoch) != nil || tab.get(all[1].text(), epoch) == nil {
		t.Error("then the one nearest to expiry goes")
	}
	if tab.size() != maxSessions {
		t.Errorf("%d sessions", tab.size())
	}
}

func TestExpiredSessionsGoBeforeLiveOnes(t *testing.T) {
	t.Parallel()
	tab := newTable()
	all := fill(tab)
	tab.touch(all[0])
	now := epoch.Add(time.Minute) // all[0] expires now
	tab.add(newSession(-1, "new", now.Add(sessionLifetime)), now)
	if tab.get(all[1].text(), now) == nil || tab.size() != maxSessions {
		t.Error("a live session was evicted though one had expired")
	}
}

func TestTouchKeepsOrder(t *testing.T) {
	t.Parallel()
	tab := newTable()
	var all []*session
	for i := range 10 {
		s := newSession(i, fmt.Sprint(i), epoch.Add(time.Duration(i+1)*time.Minute))
		all = append(all, s)
		tab.add(s, epoch)
	}
	for _, i := range []int{5, 2, 9, 0, 7, 2} {
		tab.touch(all[i])
	}
	for _, l := range []interface {
		Len() int
	}{&tab.fresh, &tab.used} {
		if l.Len() != 5 {
			t.Errorf("%d in a list", l.Len())
		}
	}
	var last int64
	for e := tab.used.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*session); s.expires < last {
			t.Error("used sessions are not in order of expiry")
		} else {
			last = s.expires
		}
	}
	tab.sweep(epoch.Add(6 * time.Minute))
	if tab.size() != 4 {
		t.Errorf("%d sessions survive minute 6", tab.size())
	}
}

func TestTouchAfterRemoval(t *testing.T) {
	t.Parallel()
	tab := newTable()
	s := newSession(1, "a", epoch.Add(sessionLifetime))
	tab.add(s, epoch)
	tab.remove(func(*session) bool { return true })
	tab.touch(s)
	if tab.size() != 0 {
		t.Error("a removed session came back")
	}
}

// TestTableAgainstModel runs random operations against plain maps.
func TestTableAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tab, model, now, n := newTable(), map[string]*session{}, epoch, 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				s := newSession(n, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "source"), now.Add(sessionLifetime))
				n++
				tab.add(s, now)
				model[s.keys.sid] = s
			},
			"touch": func(t *rapid.T) {
				if n > 0 {
					s := newSession(rapid.IntRange(0, n-1).Draw(t, "which"), "", now)
					if got := tab.get(s.text(), now); got != nil {
						tab.touch(got)
					}
				}
			},
			"time":  func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 1800).Draw(t, "s")) * time.Second) },
			"close": func(t *rapid.T) { tab.remove(func(s *session) bool { return s.agent == address.Address{byte(n / 2)} }) },
			"": func(t *rapid.T) {
				counts, size := map[string]int{}, 0
				for i := range tab.shards {
					for _, s := range *tab.shards[i].Load() {
						counts[s.source]++
						size++
						if s.keys.cipher() == nil {
							t.Fatal("a destroyed session is still listed")
						}
						if model[s.keys.sid] != s {
							t.Fatal("an unknown session")
						}
					}
				}
				if size != tab.size() {
					t.Fatalf("%d in the shards, %d in the lists", size, tab.size())
				}
				for source, c := range counts {
					if c != tab.sources[source] || c > maxSourceShare {
						t.Fatalf("source %s: %d listed, %d counted", source, c, tab.sources[source])
					}
				}
				if len(counts) != len(tab.sources) {
					t.Fatal("a source without sessions is kept")
				}
			},
		})
	})
}

func TestTableConcurrently(t *testing.T) {
	t.Parallel()
	tab := newTable()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				s := newSession(g*1000+i, fmt.Sprint(i%3), epoch.Add(sessionLifetime))
				tab.add(s, epoch)
				if got := tab.get(s.text(), epoch); got != nil {
					tab.touch(got)
					got.take(uint64(i + 1))
				}
				if i%50 == 0 {
					tab.remove(func(x *session) bool { return x.agent == s.agent })
					tab.sweep(epoch)
				}
			}
		})
	}
	wg.Wait()
	if tab.size() > 3*maxSourceShare {
		t.Errorf("%d sessions of 3 sources", tab.size())
	}
}
