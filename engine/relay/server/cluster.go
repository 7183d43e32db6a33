package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
)

// Directory says which relay of a domain carries an agent. Its entries run out
// by themselves when a relay does not refresh them. All of it is a hint: a
// directory that fails never fails a tunnel (decisions D22).
type Directory interface {
	// Announce says where the relay itself is reached by others.
	Announce(ctx context.Context) error
	// Withdraw takes that back.
	Withdraw(ctx context.Context) error
	// Claim makes this relay the owner, whoever was.
	Claim(ctx context.Context, addrs []address.Address) error
	// Refresh keeps what is ours or nobody's, and returns what is another's.
	Refresh(ctx context.Context, addrs []address.Address) (lost []address.Address, err error)
	// Release gives up what is still ours.
	Release(ctx context.Context, addrs []address.Address) error
	// Owner returns the machine that carries an agent and the internal URL of
	// that machine; both are empty for nobody.
	Owner(ctx context.Context, a address.Address) (machine, url string, err error)
	// Presence tells of many agents at once.
	Presence(ctx context.Context, addrs []address.Address) (map[address.Address]Presence, error)
}

// Times of the directory.
const (
	directoryTime  = time.Second      // for one operation
	announceEvery  = 30 * time.Second // a quarter of how long an entry stands
	retryEvery     = 2 * time.Second  // while it does not answer
	routeLifetime  = 10 * time.Second
	nobodyLifetime = 2 * time.Second
	maxRoutes      = 16_384
)

// cluster is this relay among those of its domain. A nil one is alone.
type cluster struct {
	s   *Server
	dir Directory

	// One write at a time, so that a release never undoes a later claim.
	mu   sync.Mutex
	bad  atomic.Bool
	next atomic.Int64 // when a directory that failed is asked again, Unix ns

	behind atomic.Bool   // it may not have all that is carried here
	failed chan struct{} // has room for one

	cacheMu sync.Mutex
	cache   map[address.Address]route

	stop context.CancelFunc
	work sync.WaitGroup
}

// route is where an agent is, for a while.
type route struct {
	url   string // "" for nobody
	until time.Time
}

func newCluster(s *Server, d Directory) *cluster {
	ctx, stop := context.WithCancel(context.Background())
	c := &cluster{s: s, dir: d, cache: map[address.Address]route{}, failed: make(chan struct{}, 1), stop: stop}
	c.announce(ctx)
	c.work.Go(func() { c.keep(ctx) })
	return c
}

// do asks the directory, unless it failed a moment ago.
func (c *cluster) do(ctx context.Context, f func(context.Context) error) bool {
	if c.bad.Load() && time.Now().UnixNano() < c.next.Load() {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, directoryTime)
	defer cancel()
	err := f(limited)
	switch {
	case err == nil:
		if c.bad.Swap(false) {
			c.s.c.Log.Info("directory answers again")
		}
		return true
	case ctx.Err() != nil:
		return false // it was not the directory's fault
	}
	c.next.Store(time.Now().Add(retryEvery).UnixNano())
	c.behind.Store(true)
	select {
	case c.failed <- struct{}{}:
	default:
	}
	if !c.bad.Swap(true) {
		c.s.c.Log.Warn("directory does not answer", slog.String("error", err.Error()))
	}
	return false
}

func (c *cluster) degraded() bool { return c != nil && c.bad.Load() }

func (c *cluster) announce(ctx context.Context) bool { return c.do(ctx, c.dir.Announce) }

// keep announces this relay, and everything that it carries once a directory
// that had failed is back: it may have forgotten.
func (c *cluster) keep(ctx context.Context) {
	for {
		wait := announceEvery
		if c.behind.Load() {
			wait = retryEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.failed:
			timer.Stop()
			if !c.pause(ctx) {
				return
			}
		case <-timer.C:
		}
		if c.announce(ctx) && c.behind.Swap(false) {
			c.s.refreshAll()
		}
	}
}

// pause waits until the directory may be asked again, and reports false when
// ctx ended.
func (c *cluster) pause(ctx context.Context) bool {
	timer := time.NewTimer(retryEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// RefreshNow has every agent refreshed in the directory now, as pongs do one by
// one, waits for that, and returns how many are still carried here.
func (s *Server) RefreshNow() int {
	s.refreshAll()
	s.mu.Lock()
	all := make([]*tunnel, 0, len(s.tunnels))
	for t := range s.tunnels {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.work.Wait()
	}
	return s.hosts.count()
}

// refreshAll has every tunnel refreshed, beside the caller.
func (s *Server) refreshAll() {
	s.mu.Lock()
	all := make([]*tunnel, 0, len(s.tunnels))
	for t := range s.tunnels {
		if !t.closing.Load() {
			all = append(all, t)
		}
	}
	s.mu.Unlock()
	for _, t := range all {
		t.refresh()
	}
}

// close gives everything up.
func (c *cluster) close() {
	if c == nil {
		return
	}
	c.stop()
	c.work.Wait()
	c.do(context.Background(), c.dir.Withdraw)
}

// owned keeps the addresses whose tunnel is t.
func (c *cluster) owned(t *tunnel, addrs []address.Address) []address.Address {
	var kept []address.Address
	for _, a := range addrs {
		if c.s.hosts.owner(a) == t {
			kept = append(kept, a)
		}
	}
	return kept
}

func (c *cluster) claim(t *tunnel, addrs []address.Address) {
	if c == nil {
		t.s.seen.note(t.s.c.Now(), addrs...)
		return
	}
	c.forget(addrs...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if mine := c.owned(t, addrs); len(mine) > 0 {
		c.do(context.Background(), func(ctx context.Context) error { return c.dir.Claim(ctx, mine) })
	}
}

func (c *cluster) release(t *tunnel, addrs []address.Address) {
	if c == nil {
		t.s.seen.note(t.s.c.Now(), addrs...)
		return
	}
	if len(addrs) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if free := c.owned(nil, addrs); len(free) > 0 {
		c.do(context.Background(), func(ctx context.Context) error { return c.dir.Release(ctx, free) })
	}
}

func (c *cluster) refresh(t *tunnel, addrs []address.Address) (lost []address.Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mine := c.owned(t, addrs); len(mine) > 0 {
		c.do(context.Background(), func(ctx context.Context) (err error) {
			lost, err = c.dir.Refresh(ctx, mine)
			return err
		})
	}
	return lost
}

func (c *cluster) presence(ctx context.Context, addrs []address.Address) map[address.Address]Presence {
	out := map[address.Address]Presence{}
	if c != nil {
		c.do(ctx, func(ctx context.Context) error {
			found, err := c.dir.Presence(ctx, addrs)
			for a, p := range found {
				out[a] = p
			}
			return err
		})
	}
	return out
}

// route finds the internal URL of the relay that carries an agent, "" when
// none does or nobody can tell. What was found is remembered for a while.
func (c *cluster) route(ctx context.Context, a address.Address) string {
	now := c.s.c.Now()
	c.cacheMu.Lock()
	r, known := c.cache[a]
	c.cacheMu.Unlock()
	if known && now.Before(r.until) {
		return r.url
	}
	ok := c.do(ctx, func(ctx context.Context) error {
		machine, url, err := c.dir.Owner(ctx, a)
		if machine == c.s.c.Machine {
			url = "" // an entry that outlived its tunnel
		}
		r.url = url
		return err
	})
	if !ok {
		return ""
	}
	r.until = now.Add(routeLifetime)
	if r.url == "" {
		r.until = now.Add(nobodyLifetime)
	}
	c.cacheMu.Lock()
	defer c.cacheMu.Unlock()
	if len(c.cache) >= maxRoutes {
		c.sweepLocked(now)
	}
	c.cache[a] = r
	return r.url
}

// sweepLocked makes room: what has run out, or else everything.
func (c *cluster) sweepLocked(now time.Time) {
	for a, r := range c.cache {
		if !now.Before(r.until) {
			delete(c.cache, a)
		}
	}
	if len(c.cache) >= maxRoutes {
		clear(c.cache)
	}
}

func (c *cluster) forget(addrs ...address.Address) {
	c.cacheMu.Lock()
	defer c.cacheMu.Unlock()
	for _, a := range addrs {
		delete(c.cache, a)
	}
}

func (c *cluster) routes() int {
	if c == nil {
		return 0
	}
	c.cacheMu.Lock()
	defer c.cacheMu.Unlock()
	return len(c.cache)
}
