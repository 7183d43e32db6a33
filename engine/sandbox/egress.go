package sandbox

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of the egress proxy.
const (
	ConnectTimeout = 15 * time.Second
	maxProxyHead   = 16 << 10 // bytes of a request's head
)

// blocked are the addresses that no name of a guest may lead to: this
// machine, private networks, and ways to write either in other notations.
var blocked = func() []netip.Prefix {
	var list []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}()

// Blocked reports whether an address may not be dialled. What does not parse
// is blocked.
func Blocked(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return true
	}
	a = a.Unmap()
	for _, p := range blocked {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Egress is the HTTP proxy of one sandbox. Its streams come through that
// sandbox's channel, which says whose they are: no credential exists. It is
// safe for concurrent use; every port is required but Refused.
type Egress struct {
	// Domains returns the patterns that are allowed now.
	Domains func() []string
	// Public reports whether every public host is allowed now, by name or by
	// address; nil is never.
	Public func() bool
	// Lookup resolves a name to addresses.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Dial connects to an address and port, never to a name.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Refused is told the status of refusals; nil is nobody.
	Refused func(status int)
	// Credential, when set, is asked for the token of a stream that no
	// channel names. Nil is the rule: the channel suffices.
	Credential func(token string) bool

	mu   sync.Mutex
	open map[*passage]bool
}

// passage is a stream on its way to a host.
type passage struct {
	host string
	end  context.CancelFunc
}

// Recheck ends the streams whose host is not allowed any more.
func (p *Egress) Recheck() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.open {
		if !p.allows(one.host) {
			one.end()
		}
	}
}

// begin makes a stream known to Recheck. Whether its host is allowed is asked
// after it, so that no change falls between the two.
func (p *Egress) begin(ctx context.Context, host string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	one := &passage{host, cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[*passage]bool{}
	}
	p.open[one] = true
	return ctx, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, one)
	}
}

func (p *Egress) allows(host string) bool {
	return p.Public != nil && publicHost(host) && p.Public() || AllowedHost(host, p.Domains())
}

// proxyError is an answer of the proxy itself.
type proxyError struct {
	status int
	text   string
}

func (e *proxyError) Error() string { return e.text }

var (
	errProxyAuth    = &proxyError{http.StatusProxyAuthRequired, "Proxy authentication required"}
	errBadTarget    = &proxyError{http.StatusBadRequest, "Bad proxy target"}
	errHostRefused  = &proxyError{http.StatusForbidden, "Host not allowed"}
	errConnectFails = &proxyError{http.StatusBadGateway, "Connection failed"}
)

// Serve answers the requests of one stream and returns when it has ended.
func (p *Egress) Serve(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	head := &io.LimitedReader{R: c, N: maxProxyHead}
	in := bufio.NewReader(head)
	if c.SetReadDeadline(time.Now().Add(HeaderTimeout)) != nil {
		return
	}
	r, err := http.ReadRequest(in)
	if err != nil {
		p.refuse(c, errBadTarget)
		return
	}
	head.N = 1<<63 - 1
	if c.SetReadDeadline(time.Time{}) != nil {
		return
	}
	host, port, err := p.admit(r)
	if err != nil {
		p.refuse(c, err)
		return
	}
	ctx, end := p.begin(ctx, host)
	defer end()
	stopCut := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stopCut()
	up, err := p.connect(ctx, host, port)
	if err != nil {
		p.refuse(c, err)
		return
	}
	defer func() { _ = up.Close() }()
	stopUp := context.AfterFunc(ctx, func() { _ = up.Close() })
	defer stopUp()
	if r.Method == http.MethodConnect {
		if _, err := io.WriteString(c, "HTTP/1.1 200 Connection Established\r\n\r\n"); err == nil {
			splice(c, in, up)
		}
		return
	}
	forward(c, r, up)
}

// refuse answers and logs. Nothing the guest wrote is repeated.
func (p *Egress) refuse(c net.Conn, err error) {
	e, ok := errors.AsType[*proxyError](err)
	if !ok {
		e = errConnectFails
	}
	if p.Refused != nil && (e == errProxyAuth || e == errHostRefused) {
		p.Refused(e.status)
	}
	text := "HTTP/1.1 " + strconv.Itoa(e.status) + " " + http.StatusText(e.status) + "\r\n"
	if e.status == http.StatusProxyAuthRequired {
		text += "Proxy-Authenticate: Basic realm=\"osaurus-sandbox\"\r\n"
	}
	_ = c.SetWriteDeadline(time.Now().Add(HeaderTimeout)) // the write says when it failed
	_, _ = io.WriteString(c, text+"Content-Type: text/plain\r\nContent-Length: "+strconv.Itoa(len(e.text))+"\r\nConnection: close\r\n\r\n"+e.text)
}

// admit says what a request names.
func (p *Egress) admit(r *http.Request) (host, port string, err error) {
	if p.Credential != nil && !p.Credential(proxyToken(r.Header)) {
		return "", "", errProxyAuth
	}
	return target(r)
}

// connect checks, resolves and dials.
func (p *Egress) connect(ctx context.Context, host, port string) (net.Conn, error) {
	if !p.allows(host) {
		return nil, errHostRefused
	}
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	addresses, err := p.Lookup(ctx, NormalHost(host))
	if err != nil {
		return nil, errConnectFails
	}
	for _, a := range addresses {
		if Blocked(a) {
			continue
		}
		// As an address: a second look-up could answer something else.
		up, err := p.Dial(ctx, net.JoinHostPort(a, port))
		if err != nil {
			return nil, errConnectFails
		}
		return up, nil
	}
	if len(addresses) == 0 {
		return nil, errConnectFails
	}
	return nil, errHostRefused
}

// publicHost reports whether a host can be one that everybody may ask for: an
// address that is not blocked, or a name of two labels. What a name leads to is
// looked at when it is resolved.
func publicHost(host string) bool {
	host = NormalHost(host)
	if _, err := netip.ParseAddr(host); err == nil {
		return !Blocked(host)
	}
	return ValidPattern(host) && host[0] != '*'
}

// target is host:port of CONNECT, or the authority of an absolute http URI.
func target(r *http.Request) (host, port string, err error) {
	authority, port := r.RequestURI, ""
	if r.Method != http.MethodConnect {
		u, err := url.ParseRequestURI(r.RequestURI)
		if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil {
			return "", "", errBadTarget
		}
		authority, port = u.Host, "80"
	}
	if host, p, err := net.SplitHostPort(authority); err == nil {
		return checkTarget(host, p)
	}
	if port == "" || strings.ContainsAny(authority, ":[]") {
		return "", "", errBadTarget
	}
	return checkTarget(authority, port)
}

func checkTarget(host, port string) (string, string, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || port[0] == '+' {
		return "", "", errBadTarget
	}
	return host, strconv.FormatUint(n, 10), nil
}

// proxyToken reads "Basic base64(token:)" and "Bearer token".
func proxyToken(h http.Header) string {
	value := h.Get("Proxy-Authorization")
	if scheme, token, ok := strings.Cut(strings.TrimSpace(value), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	r := http.Request{Header: http.Header{"Authorization": {value}}}
	user, _, _ := r.BasicAuth()
	return user
}

// splice carries bytes both ways until both have ended.
func splice(c net.Conn, in io.Reader, up net.Conn) {
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(up, in) // either end may break; the other is told
		if half, ok := up.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	group.Go(func() {
		_, _ = io.Copy(c, up)
		_ = c.Close()
	})
	group.Wait()
}

// hopByHop are the headers of a connection, not of a message (RFC 9110
// section 7.6.1).
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Upgrade"}

// forward sends one request on and its answer back, then ends the stream: the
// next request may name another host, which is a stream of its own.
func forward(c net.Conn, r *http.Request, up net.Conn) {
	for _, list := range r.Header.Values("Connection") {
		for _, name := range strings.Split(list, ",") {
			r.Header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		r.Header.Del(name)
	}
	r.Host, r.Close = r.URL.Host, true
	go func() { _ = r.Write(up) }() // ends when either connection is closed
	resp, err := http.ReadResponse(bufio.NewReader(up), r)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for _, name := range hopByHop {
		resp.Header.Del(name)
	}
	resp.Close = true
	_ = resp.Write(c) // the guest may have gone
}
