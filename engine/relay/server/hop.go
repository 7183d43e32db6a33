package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
)

// Headers of the hop between two relays (PROTOCOL.md section 3). The public
// listener drops everything that begins like them.
const (
	hopHeader  = "X-Relay-Internal-Hop"
	hostHeader = "X-Relay-Original-Host"
	pathHeader = "X-Relay-Original-Path"
	ipHeader   = "X-Relay-Client-Ip"
	authHeader = "X-Relay-Internal-Auth"
	missHeader = "X-Relay-Hop-Miss" // of an answer: the agent is not there
)

// hopSkew is how far the clocks of two relays may differ, in seconds.
const hopSkew = 30

// proof is the MAC of a hop (decisions D22). The parts need no separator: a
// path begins with the first slash, a host has a fixed length, and the time
// ten digits.
func proof(key secret.Bytes, method, path, host, ip string, unix int64) []byte {
	mac := hmac.New(sha256.New, key.Expose())
	_, _ = io.WriteString(mac, method+path+host+ip+strconv.FormatInt(unix, 10)) // a hash takes everything
	return mac.Sum(nil)
}

// elsewhere passes a request to the relay that carries the agent, or says that
// none does.
func (s *Server) elsewhere(w *answer, r *http.Request, a address.Address, path, ip string) {
	base := ""
	if s.cluster != nil {
		base = s.cluster.route(r.Context(), a)
	}
	u, err := url.Parse(base)
	if base == "" || err != nil {
		w.refuse(http.StatusBadGateway, "agent_offline")
		return
	}
	if r.ContentLength > wire.MaxBodyBytes {
		w.unread(r, errTooLarge)
		return
	}
	s.stats.forwards.Add(1)
	r.Body = http.MaxBytesReader(w.ResponseWriter, r.Body, wire.MaxBodyBytes)
	// An answer may begin before the other relay has the whole body, which
	// net/http takes away then unless it is told otherwise.
	_ = w.control.EnableFullDuplex() // HTTP/2 does it always
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { s.hop(p.Out, u, a, path, ip) },
		Transport: s.c.Transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		ModifyResponse: func(resp *http.Response) error {
			if resp.Header.Get(missHeader) != "" {
				s.cluster.forget(a) // the entry was stale
			}
			resp.Header.Del(missHeader)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) { s.unreachable(w, r, a, err) },
	}
	proxy.ServeHTTP(w, r)
}

// hop makes the request between relays.
func (s *Server) hop(out *http.Request, u *url.URL, a address.Address, path, ip string) {
	for name := range out.Header {
		if isWithheld(strings.ToLower(name)) {
			delete(out.Header, name)
		}
	}
	host := a.Lower() + "." + s.domain
	now := s.c.Now().Unix()
	out.URL = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
	out.Host = u.Host
	out.Header.Set(hopHeader, "1")
	out.Header.Set(hostHeader, host)
	out.Header.Set(pathHeader, path)
	out.Header.Set(ipHeader, ip)
	out.Header.Set(authHeader, strconv.FormatInt(now, 10)+"."+hex.EncodeToString(proof(s.c.InternalSecret, out.Method, path, host, ip, now)))
}

// unreachable answers when the other relay did not.
func (s *Server) unreachable(w *answer, r *http.Request, a address.Address, err error) {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		w.unread(r, errTooLarge)
		return
	}
	if r.Context().Err() != nil {
		w.refuse(statusClientGone, "client_disconnected")
		return
	}
	s.cluster.forget(a)
	w.refuse(http.StatusBadGateway, "agent_unreachable")
}

// Internal answers other relays, on a listener of its own. A request that does
// not prove itself is refused; one whose agent is not here ends here: there is
// no second hop.
func (s *Server) Internal() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, path, ip, ok := s.proven(r)
		if !ok {
			writeError(w, http.StatusForbidden, "forbidden")
			return
		}
		s.busy.enter()
		defer s.busy.leave()
		out := s.newAnswer(w)
		t := s.hosts.owner(a)
		if t == nil {
			w.Header().Set(missHeader, "1")
			out.refuse(http.StatusBadGateway, "agent_offline")
			return
		}
		s.ask(out, r, t, a, path, ip)
	})
}

// proven checks the proof of a hop before anything of it is believed.
func (s *Server) proven(r *http.Request) (a address.Address, path, ip string, ok bool) {
	path, host, ip := r.Header.Get(pathHeader), r.Header.Get(hostHeader), r.Header.Get(ipHeader)
	stamp, mac, _ := strings.Cut(r.Header.Get(authHeader), ".")
	unix, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || s.c.InternalSecret.IsZero() || r.Header.Get(hopHeader) != "1" {
		return a, "", "", false
	}
	if now := s.c.Now().Unix(); unix < now-hopSkew || unix > now+hopSkew {
		return a, "", "", false
	}
	got, err := hex.DecodeString(mac)
	if err != nil || !hmac.Equal(got, proof(s.c.InternalSecret, r.Method, path, host, ip, unix)) {
		return a, "", "", false
	}
	a, ok = s.agentOf(host)
	_, err = netip.ParseAddr(ip)
	return a, path, ip, ok && err == nil && strings.HasPrefix(path, "/")
}
