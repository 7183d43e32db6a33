package server

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"osaurus/engine/settings"
)

// Origin says how a request reached the host. It travels in the context and is
// never taken from a header alone.
type Origin uint8

// The origins.
const (
	Local Origin = iota // our listener
	Relay               // the tunnel
)

type originKey struct{}

// WithOrigin marks requests that enter through the tunnel.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// relayHeader can only lower trust (PROTOCOL.md section 4).
const relayHeader = "X-Osaurus-Relay-Origin"

func originOf(r *http.Request) Origin {
	if o, ok := r.Context().Value(originKey{}).(Origin); ok && o == Relay {
		return Relay
	}
	if len(r.Header[relayHeader]) > 0 {
		return Relay
	}
	return Local
}

// typedRelay reports a real tunnel, which alone may name its caller.
func typedRelay(r *http.Request) bool {
	o, ok := r.Context().Value(originKey{}).(Origin)
	return ok && o == Relay
}

// peerAddr is the socket's address, IPv4-mapped ones as IPv4.
func peerAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// physicalLoopback reports a socket of this machine that is not the relay.
func physicalLoopback(r *http.Request) bool {
	return originOf(r) == Local && peerAddr(r).IsLoopback()
}

// forwarded lists headers that only a proxy adds.
var forwarded = []string{"Forwarded", "Via", "X-Real-Ip"}

// trustedLoopback decides whether a caller needs no key (decisions C3): on
// this machine, host not exposed, addressing us by a local name, not through
// a proxy, and not a web page of somewhere else.
func trustedLoopback(r *http.Request, s settings.Server, port int) bool {
	if !physicalLoopback(r) || s.Expose || !s.LoopbackTrust || !localHost(r.Host, port) {
		return false
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	for _, name := range forwarded {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if strings.EqualFold(strings.TrimSpace(site), "cross-site") {
			return false
		}
	}
	for _, o := range r.Header["Origin"] {
		if !loopbackOrigin(o) && !exactEntry(s.CORS, o) {
			return false
		}
	}
	return true
}

// localNames are how a caller of this machine names us.
var localNames = []string{"localhost", "127.0.0.1", "[::1]"}

// localHost accepts a local name with our port, written as a browser does. A
// missing port is 80.
func localHost(host string, port int) bool {
	for _, name := range localNames {
		if len(host) < len(name) || !strings.EqualFold(host[:len(name)], name) {
			continue
		}
		digits, ok := strings.CutPrefix(host[len(name):], ":")
		if !ok {
			return digits == "" && port == 80
		}
		n, err := strconv.Atoi(digits)
		return err == nil && n == port && digits[0] != '0' && digits[0] != '+'
	}
	return false
}

// loopbackOrigin accepts http(s) origins of this machine: scheme, host and
// port, nothing else (RFC 6454 section 6.1).
func loopbackOrigin(o string) bool {
	u, err := url.Parse(o)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.Path != "" || strings.ContainsAny(o, "?#") || strings.HasSuffix(o, ":") {
		return false
	}
	if p := u.Port(); p != "" {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return false
		}
	}
	if strings.EqualFold(u.Hostname(), "localhost") {
		return !strings.HasPrefix(u.Host, "[")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && (ip.Is4() && ip.IsLoopback() || ip == netip.IPv6Loopback())
}

func exactEntry(list []string, o string) bool {
	for _, e := range list {
		if e != "*" && e == o {
			return true
		}
	}
	return false
}

// source is the key of the rate limiters: the socket's address, IPv6 by its
// /64; behind the tunnel the caller that the relay names.
func source(r *http.Request) string {
	if typedRelay(r) {
		hop, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		hop = strings.TrimSpace(hop)
		if hop == "" {
			hop = "127.0.0.1"
		}
		return "relay:" + hop[:min(len(hop), maxRelaySource)]
	}
	ip := peerAddr(r)
	if ip.Is6() {
		p, err := ip.Prefix(64)
		if err == nil {
			return p.String()
		}
	}
	return ip.String()
}
