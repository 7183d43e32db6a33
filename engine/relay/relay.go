// Package relay is the host's side of the tunnel to a relay: it announces
// agents there and serves the requests that come back. The relay is trusted
// with nothing: what it sends decides no host and no trust, and what must stay
// secret crosses it in the Secure Channel. PROTOCOL.md beside this file is its
// specification.
package relay

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/relay/wire"
)

// What the protocol fixes, and our own limits (decisions D19 to D21).
const (
	MaxAgents    = MaxSockets * wire.MaxAgents
	MaxSockets   = 5
	MaxInFlight  = 64        // requests of one tunnel
	MaxQueued    = 256 << 10 // bytes of one answer before its writer waits
	MaxChunk     = 16 << 10  // bytes of one stream_chunk
	streamFrom   = 1 << 20   // bytes of an answer from which it is streamed
	maxChanges   = 4         // made one by one; more open a new socket
	maxBodies    = 64 << 20  // bytes of requests that are being served, over all sockets
	maxUrgent    = 512       // small frames that wait to be sent
	replyTimeout = 10 * time.Second
	maxSilence   = 100 * time.Second // three pings of the relay and a little
	againDelay   = 30 * time.Second  // until one that an older relay turned away is tried again
	rateWait     = 12 * time.Second  // until one more challenge is allowed

	minDelay     = time.Second
	maxDelay     = time.Minute
	jitter       = 0.2
	healthyAfter = time.Minute
	restartDelay = 2 * time.Second
	maxRefusals  = 3 // of a signature in a row
)

// Agent is one that wants to be reached through the relay.
type Agent struct {
	ID      string
	Address address.Address
}

// State is what an agent's tunnel is.
type State uint8

// The states.
const (
	Disconnected State = iota
	Connecting
	Connected
	Failed
	ServedElsewhere // another host took the address over
)

var states = [...]string{"disconnected", "connecting", "connected", "error", "served elsewhere"}

// String returns the word for people and JSON.
func (s State) String() string { return states[s] }

// MarshalText writes String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(text []byte) error {
	if i := slices.Index(states[:], string(text)); i >= 0 {
		*s = State(i)
	}
	return nil
}

// Status is how an agent's tunnel is.
type Status struct {
	Agent   string          `json:"agent_id"`
	Address address.Address `json:"address"`
	State   State           `json:"state"`
	URL     string          `json:"url,omitempty"` // where callers reach it, as the relay says
	Detail  string          `json:"detail,omitempty"`
}

// Config configures New. Agents, Signer, Handler and Dial are required.
type Config struct {
	// Agents lists who wants to be reached now. Changed tells when it differs.
	Agents func() []Agent
	Signer func(ctx context.Context, a address.Address) (identity.Signer, error)
	// Handler serves a request of the relay; its context ends when the caller
	// goes away. It must know the request's origin by itself.
	Handler http.Handler
	// Dial opens a socket to the relay.
	Dial func(ctx context.Context) (Conn, error)
	// Place returns where callers reach an agent, or an error when the relay
	// names a place that is not the agent's: its word alone counts for
	// nothing. nil takes its word.
	Place func(a address.Address, url string) (string, error)
	// Probe looks whether an agent is reached at its public URL; nil leaves it
	// out.
	Probe  func(ctx context.Context, url string) error
	Now    func() time.Time
	Jitter func() float64 // from 0 to 1
	Log    func(event string, attrs ...slog.Attr)
}

// Tunnel keeps agents connected while Run runs. It is safe for concurrent use.
type Tunnel struct {
	c       Config
	changed chan struct{} // has room for one

	bodies atomic.Int64 // bytes of requests that are being served

	mu        sync.Mutex
	lines     []*line
	status    map[address.Address]*Status
	elsewhere map[address.Address]bool
	probes    chan probe
}

// New returns a tunnel that is not connected.
func New(c Config) *Tunnel {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Place == nil {
		c.Place = func(_ address.Address, url string) (string, error) { return url, nil }
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	return &Tunnel{c: c, changed: make(chan struct{}, 1), status: map[address.Address]*Status{}, elsewhere: map[address.Address]bool{}, probes: make(chan probe, MaxAgents)}
}

// Changed says that Agents may answer differently, or that keys can be had
// that could not before.
func (t *Tunnel) Changed() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Reclaim lets an address that another host took over be connected again: the
// owner asked for it.
func (t *Tunnel) Reclaim(a address.Address) {
	t.mu.Lock()
	delete(t.elsewhere, a)
	t.mu.Unlock()
	t.Changed()
}

// Status lists every agent that wants to be reached, sorted by address.
func (t *Tunnel) Status() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Status, 0, len(t.status))
	for _, s := range t.status {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Address.Lower(), b.Address.Lower()) })
	return all
}

// URL returns where callers reach an agent; "" while it is not connected.
func (t *Tunnel) URL(a address.Address) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.status[a]; s != nil && s.State != Failed && s.State != ServedElsewhere {
		return s.URL
	}
	return ""
}

// Run connects and serves until ctx ends.
func (t *Tunnel) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer func() {
		cancel()
		work.Wait()
		t.mu.Lock()
		t.lines = nil
		clear(t.status)
		clear(t.elsewhere)
		t.mu.Unlock()
	}()
	work.Go(func() { t.prober(ctx) })
	for {
		for _, l := range t.assign() {
			work.Go(func() { l.run(ctx) })
		}
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		}
	}
}

// assign spreads the wanted agents over sockets and returns those that are
// new. An agent stays where it is.
func (t *Tunnel) assign() (fresh []*line) {
	wanted := map[address.Address]Agent{}
	for _, a := range t.c.Agents() {
		if !a.Address.IsZero() {
			wanted[a.Address] = a
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.status {
		if _, still := wanted[a]; !still {
			delete(t.status, a)
			delete(t.elsewhere, a)
		}
	}
	t.lines = slices.DeleteFunc(t.lines, func(l *line) bool { return l.ended.Load() })
	placed := map[address.Address]bool{}
	sets := make(map[*line]map[address.Address]Agent, len(t.lines))
	for _, l := range t.lines {
		sets[l] = map[address.Address]Agent{}
		for a := range l.wants() {
			if agent, still := wanted[a]; still && !t.elsewhere[a] {
				sets[l][a], placed[a] = agent, true
			}
		}
	}
	order := make([]Agent, 0, len(wanted))
	for _, a := range wanted {
		order = append(order, a)
	}
	slices.SortFunc(order, func(a, b Agent) int { return strings.Compare(a.Address.Lower(), b.Address.Lower()) })
	for _, a := range order {
		t.noteLocked(a)
		if placed[a.Address] || t.elsewhere[a.Address] {
			continue
		}
		l := t.roomLocked(sets, &fresh)
		if l == nil {
			t.setLocked(a.Address, Failed, "", "more agents than the relay carries for one host")
			continue
		}
		sets[l][a.Address] = a
	}
	for l, set := range sets {
		l.want(set)
	}
	return fresh
}

// roomLocked finds a socket with room for one more, or adds one.
func (t *Tunnel) roomLocked(sets map[*line]map[address.Address]Agent, fresh *[]*line) *line {
	for _, l := range t.lines {
		if len(sets[l]) < wire.MaxAgents {
			return l
		}
	}
	if len(t.lines) == MaxSockets {
		return nil
	}
	l := newLine(t)
	t.lines, sets[l] = append(t.lines, l), map[address.Address]Agent{}
	*fresh = append(*fresh, l)
	return l
}

func (t *Tunnel) noteLocked(a Agent) {
	s := t.status[a.Address]
	if s == nil {
		s = &Status{Address: a.Address, State: Connecting}
		t.status[a.Address] = s
	}
	s.Agent = a.ID
	if s.State == ServedElsewhere && !t.elsewhere[a.Address] {
		s.State, s.Detail = Connecting, ""
	}
}

// set notes the state of an agent that is still wanted.
func (t *Tunnel) set(a address.Address, state State, url, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(a, state, url, detail)
}

func (t *Tunnel) setLocked(a address.Address, state State, url, detail string) {
	if s := t.status[a]; s != nil && (!t.elsewhere[a] || state == ServedElsewhere) {
		s.State, s.URL, s.Detail = state, url, detail
	}
}

// superseded notes that another host has the address now. Nothing connects it
// again by itself.
func (t *Tunnel) superseded(a address.Address) {
	t.mu.Lock()
	t.elsewhere[a] = true
	t.setLocked(a, ServedElsewhere, "", "another device of yours serves this agent")
	t.mu.Unlock()
	t.c.Log("relay_superseded", slog.String("address", a.String()))
	t.Changed()
}

// probe is one look at a public URL.
type probe struct {
	a   address.Address
	url string
}

// ready notes that the relay took an agent, and has its URL looked at.
func (t *Tunnel) ready(a address.Address, said string) {
	url, err := t.c.Place(a, said)
	if err != nil {
		t.set(a, Failed, "", err.Error())
		return
	}
	if t.c.Probe == nil {
		t.set(a, Connected, url, "")
		return
	}
	t.set(a, Connecting, url, "")
	select {
	case t.probes <- probe{a, url}:
	default: // as many wait as there can be agents
	}
}

// Probes of a public URL (relay.md section 9.2).
const (
	probeTries   = 3
	probePause   = time.Second
	probeTimeout = 8 * time.Second
)

func (t *Tunnel) prober(ctx context.Context) {
	for {
		var p probe
		select {
		case <-ctx.Done():
			return
		case p = <-t.probes:
		}
		var err error
		for try := range probeTries {
			if try > 0 && !sleep(ctx, probePause) {
				return
			}
			once, cancel := context.WithTimeout(ctx, probeTimeout)
			err = t.c.Probe(once, p.url)
			cancel()
			if err == nil {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
		if t.URL(p.a) != p.url {
			continue // it went away meanwhile
		}
		if err != nil {
			t.set(p.a, Connecting, p.url, "the public link does not answer: "+err.Error())
			continue
		}
		t.set(p.a, Connected, p.url, "")
	}
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
