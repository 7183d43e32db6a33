package channel

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strings"

	"osaurus/engine/fault"
)

type insideKey struct{}

// Inside reports whether a request arrived through the channel.
func Inside(ctx context.Context) bool { return ctx.Value(insideKey{}) != nil }

// ServeCall opens a sealed call, lets next serve the inner request and seals
// what next writes. The inner request has r's context, RemoteAddr, Host and
// everything that says where r came from; it is trusted no more than its
// bearer, except that Inside reports true. When next panics, nothing more is
// sealed, so that the caller sees a truncated answer.
func (s *Server) ServeCall(w http.ResponseWriter, r *http.Request, next http.Handler) {
	in, seal, err := s.open(r)
	if err != nil {
		fault.Write(w, err)
		return
	}
	defer in.Body.Close() //nolint:errcheck // it cannot fail
	reply := newReply(w, seal, in.Method)
	next.ServeHTTP(reply, in)
	reply.finish()
}

// open does the checks of PROTOCOL.md section 4 in their order. Nothing before
// the cipher's verdict changes state.
func (s *Server) open(r *http.Request) (*http.Request, *sealer, error) {
	outer, inner := borrow(0), borrow(0)
	defer recycle(outer)
	defer wipe(inner)
	body, err := readBody(*outer, r, maxCall, fault.SecureMalformed)
	*outer = body
	if err != nil {
		return nil, nil, err
	}
	e, err := parseEnvelope(body, *inner)
	if err != nil {
		return nil, nil, fault.SecureMalformed
	}
	*inner = e.ct
	sess := s.sessions.get(e.sid, s.config.Now())
	if sess == nil {
		return nil, nil, fault.SecureSessionUnknown
	}
	if e.seq == 0 {
		return nil, nil, fault.SecureReplay
	}
	plaintext, seal, err := sess.open(e)
	if err != nil {
		return nil, nil, err
	}
	s.sessions.touch(sess)
	lent := newLoan(borrow(0), wipe)
	defer lent.drop()
	in, err := parseInnerRequest(plaintext, *lent.buf)
	if err != nil {
		return nil, nil, fault.SecureMalformed
	}
	req, err := in.request(r)
	if err == nil && len(in.body) > 0 {
		*lent.buf = in.body
		req.Body = lent.body(in.body)
	}
	return req, seal, err
}

// open authenticates e, marks its sequence number and returns what seals the
// answer. Errors are faults.
func (s *session) open(e envelope) ([]byte, *sealer, error) {
	plaintext, err := s.keys.openRequest(e.ct, e.seq)
	if err == errDestroyed { //nolint:errorlint // never wrapped
		return nil, nil, fault.SecureSessionUnknown
	}
	if err != nil {
		return nil, nil, fault.SecureDecryptFailed
	}
	if !s.take(e.seq) {
		return nil, nil, fault.SecureReplay
	}
	rec, err := s.keys.record(e.seq)
	if err != nil {
		return nil, nil, fault.SecureSessionUnknown
	}
	return plaintext, &sealer{record: rec}, nil
}

// request builds the inner http.Request, without the body. Errors: fault.SecureMalformed.
func (in *innerRequest) request(outer *http.Request) (*http.Request, error) {
	if !token(in.method) || !strings.HasPrefix(in.path, "/") || reachesChannel(in.path) {
		return nil, fault.SecureMalformed
	}
	target, err := url.ParseRequestURI(in.path)
	if err != nil {
		return nil, fault.SecureMalformed
	}
	h, err := in.header(outer.Header)
	if err != nil {
		return nil, err
	}
	req := &http.Request{
		Method: in.method, URL: target, RequestURI: in.path,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Host: outer.Host, RemoteAddr: outer.RemoteAddr, TLS: outer.TLS,
		Body: http.NoBody, ContentLength: int64(len(in.body)),
	}
	return req.WithContext(context.WithValue(outer.Context(), insideKey{}, true)), nil
}

// header gathers the inner headers: what the sealed request may set, its own
// three fields, and what says where the outer request came from. Without the
// last, a sealed call through a proxy on this machine would look local.
func (in *innerRequest) header(outer http.Header) (http.Header, error) {
	h := make(http.Header, len(in.headers)+4)
	for _, x := range in.headers {
		name := textproto.CanonicalMIMEHeaderKey(x.name)
		if reserved(name) {
			continue
		}
		if _, twice := h[name]; twice || !token(x.name) || !fieldValue(x.value) {
			return nil, fault.SecureMalformed
		}
		h[name] = []string{x.value}
	}
	for _, x := range [...]header{{"Authorization", in.authorization}, {"Accept", in.accept}, {"Content-Type", in.contentType}} {
		if !fieldValue(x.value) {
			return nil, fault.SecureMalformed
		}
		if x.value != "" {
			h[x.name] = []string{x.value}
		}
	}
	for name, values := range outer {
		if inherited(name) {
			h[name] = slices.Clone(values)
		}
	}
	return h, nil
}

// reserved lists the headers a sealed request cannot set (PROTOCOL.md section
// 6); they are dropped silently.
func reserved(name string) bool {
	switch name {
	case "Host", "Content-Length", "Connection", "Authorization", "Accept", "Content-Type",
		"Cookie", "Transfer-Encoding", "Te", "Upgrade", "Origin", "Forwarded", "X-Real-Ip", relayHeader:
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// inherited lists the headers by which the gate tells where a request came
// from: they are the outer request's.
func inherited(name string) bool {
	switch name {
	case "Origin", "Forwarded", "X-Real-Ip", relayHeader, "Via", "Sec-Fetch-Site":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// reachesChannel reports whether an inner path leads to /secure or below, in
// any spelling: as it stands (which is how routes are matched), decoded, with
// dot segments resolved, in any case, under one of the route prefixes.
func reachesChannel(target string) bool {
	raw, _, _ := strings.Cut(target, "?")
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return true
	}
	for _, p := range []string{raw, decoded, path.Clean(decoded)} {
		p = trimRoutePrefix(strings.ToLower(p))
		if p == "/secure" || strings.HasPrefix(p, "/secure/") {
			return true
		}
	}
	return false
}

// trimRoutePrefix removes one prefix at a segment boundary (server paths).
func trimRoutePrefix(p string) string {
	for _, prefix := range []string{"/v1/api", "/api", "/v1"} {
		if rest, ok := strings.CutPrefix(p, prefix); ok && (rest == "" || rest[0] == '/') {
			return rest
		}
	}
	return p
}

// token and fieldValue are RFC 9110 sections 5.6.2 and 5.5.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

func fieldValue(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return (c < ' ' && c != '\t') || c == 0x7f })
}
