package server

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
)

// counters are since the start.
type counters struct {
	requests, connections, forwards, invalidFrames, badResponses, slow, takeovers atomic.Int64
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller may be gone
}

func (s *Server) tunnelCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tunnels)
}

// health is section 7.2.
func (s *Server) health(w http.ResponseWriter) {
	out := struct {
		Status  string `json:"status"`
		Tunnels int    `json:"tunnels"`
		Region  string `json:"region"`
		Machine string `json:"machine"`
		Redis   string `json:"redis"`
	}{"ok", s.tunnelCount(), s.c.Region, s.c.Machine, "ok"}
	if s.cluster.degraded() {
		out.Redis = "degraded"
	}
	status := http.StatusOK
	if s.draining.Load() {
		out.Status, status = "shutting_down", http.StatusServiceUnavailable
	}
	writeJSON(w, status, out)
}

// Statistics are what /stats shows, in its order.
type Statistics struct {
	Region            string `json:"region"`
	Machine           string `json:"machine"`
	UptimeSeconds     int64  `json:"uptime_seconds"`
	ActiveTunnels     int    `json:"active_tunnels"`
	ActiveAgents      int    `json:"active_agents"`
	Requests          int64  `json:"total_requests_relayed"`
	Connections       int64  `json:"total_tunnel_connections"`
	Replays           int64  `json:"total_replays"` // always 0: we forward every size
	InternalForwards  int64  `json:"total_internal_forwards"`
	InvalidFrames     int64  `json:"total_invalid_frames"`
	BadHostResponses  int64  `json:"total_bad_host_responses"`
	SlowConsumers     int64  `json:"total_slow_consumer_aborts"`
	Takeovers         int64  `json:"total_takeovers"`
	RouteCacheEntries int    `json:"route_cache_entries"`
	RedisDegraded     bool   `json:"redis_degraded"`
}

// Statistics returns the counters.
func (s *Server) Statistics() Statistics {
	c := &s.stats
	return Statistics{
		Region: s.c.Region, Machine: s.c.Machine, UptimeSeconds: int64(s.c.Now().Sub(s.started).Seconds()), ActiveTunnels: s.tunnelCount(), ActiveAgents: s.hosts.count(),
		Requests: c.requests.Load(), Connections: c.connections.Load(), InternalForwards: c.forwards.Load(), InvalidFrames: c.invalidFrames.Load(),
		BadHostResponses: c.badResponses.Load(), SlowConsumers: c.slow.Load(), Takeovers: c.takeovers.Load(), RouteCacheEntries: s.cluster.routes(), RedisDegraded: s.cluster.degraded(),
	}
}

func (s *Server) statistics(w http.ResponseWriter, r *http.Request) {
	if !s.limits.stats.Allow(sourceOf(s.clientIP(r))) {
		s.newAnswer(w).refuse(http.StatusTooManyRequests, "rate_limited")
		return
	}
	writeJSON(w, http.StatusOK, s.Statistics())
}

// Metrics answers with the counters as Prometheus reads them (text format
// 0.0.4). It belongs on a listener that the public does not reach.
func (s *Server) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		st := s.Statistics()
		degraded := 0
		if st.RedisDegraded {
			degraded = 1
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		for _, m := range []struct {
			kind, name, text string
			value            int64
		}{
			{"gauge", "uptime_seconds", "Seconds since the start.", st.UptimeSeconds},
			{"gauge", "tunnels", "Sockets of hosts.", int64(st.ActiveTunnels)},
			{"gauge", "agents", "Agents that are carried here.", int64(st.ActiveAgents)},
			{"counter", "requests_total", "Requests sent to hosts.", st.Requests},
			{"counter", "tunnel_connections_total", "Sockets that were opened.", st.Connections},
			{"counter", "internal_forwards_total", "Requests sent to other relays.", st.InternalForwards},
			{"counter", "invalid_frames_total", "Frames of hosts that broke the protocol.", st.InvalidFrames},
			{"counter", "bad_host_responses_total", "Answers of hosts that could not be sent on.", st.BadHostResponses},
			{"counter", "slow_consumer_aborts_total", "Streams cut because their caller was slow.", st.SlowConsumers},
			{"counter", "takeovers_total", "Agents that moved to a newer tunnel.", st.Takeovers},
			{"gauge", "route_cache_entries", "Agents of other relays that are remembered.", int64(st.RouteCacheEntries)},
			{"gauge", "redis_degraded", "1 while Redis does not answer.", int64(degraded)},
			{"gauge", "held_bytes", "Bytes of bodies and large frames in memory.", s.held.n.Load()},
		} {
			// The reader may be gone.
			_, _ = fmt.Fprintf(w, "# HELP osaurus_relay_%s %s\n# TYPE osaurus_relay_%[1]s %[3]s\nosaurus_relay_%[1]s %[4]d\n", m.name, m.text, m.kind, m.value)
		}
	})
}

// seen remembers when agents were last carried, where there is no directory.
type seen struct {
	mu sync.Mutex
	at map[address.Address]time.Time
}

const maxSeen = 65_536

func (s *seen) note(now time.Time, addrs ...address.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		if _, known := s.at[a]; !known && len(s.at) >= maxSeen {
			for old := range s.at { // any one
				delete(s.at, old)
				break
			}
		}
		s.at[a] = now
	}
}

// Presence is whether an agent can be reached.
type Presence struct {
	Online   bool      `json:"online"`
	LastSeen time.Time `json:"-"` // zero when never
}

// isoMillis is how JavaScript writes a time.
const isoMillis = "2006-01-02T15:04:05.000Z"

// MarshalJSON adds last_seen, null when there is none.
func (p Presence) MarshalJSON() ([]byte, error) {
	var last *string
	if !p.LastSeen.IsZero() {
		text := p.LastSeen.UTC().Format(isoMillis)
		last = &text
	}
	return json.Marshal(struct {
		Online   bool    `json:"online"`
		LastSeen *string `json:"last_seen"`
	}{p.Online, last})
}

// presence is for the router service alone (section 7.2).
func (s *Server) presence(w http.ResponseWriter, r *http.Request) {
	if s.c.PresenceToken.Len() < minPresenceToken {
		writeError(w, http.StatusNotFound, "not_found")
		return
	}
	if !s.limits.presence.Allow(sourceOf(s.clientIP(r))) {
		s.newAnswer(w).refuse(http.StatusTooManyRequests, "rate_limited")
		return
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer || subtle.ConstantTimeCompare([]byte(token), s.c.PresenceToken.Expose()) != 1 {
		writeError(w, http.StatusUnauthorized, "unauthorized")
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		writeError(w, http.StatusMethodNotAllowed, "method_not_allowed")
		return
	}
	addrs, ok := presenceQuery(r.URL.Query().Get("addresses"))
	if !ok {
		writeError(w, http.StatusBadRequest, "invalid_addresses")
		return
	}
	out := map[string]Presence{}
	for a, p := range s.present(r, addrs) {
		out[a.Lower()] = p
	}
	writeJSON(w, http.StatusOK, map[string]any{"presence": out})
}

func presenceQuery(text string) ([]address.Address, bool) {
	if text == "" || len(text) > maxPresenceQuery {
		return nil, false
	}
	var addrs []address.Address
	for part := range strings.SplitSeq(text, ",") {
		part = strings.ToLower(part)
		a, err := address.Parse(part)
		if err != nil || !label.MatchString(part) || len(addrs) == maxPresence {
			return nil, false
		}
		addrs = append(addrs, a)
	}
	return addrs, true
}

// present looks here first, then in the directory.
func (s *Server) present(r *http.Request, addrs []address.Address) map[address.Address]Presence {
	out := s.cluster.presence(r.Context(), addrs)
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	for _, a := range addrs {
		p := out[a]
		if at := s.seen.at[a]; at.After(p.LastSeen) {
			p.LastSeen = at
		}
		if s.hosts.owner(a) != nil {
			p.Online, p.LastSeen = true, s.c.Now()
		}
		out[a] = p
	}
	return out
}
