package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

// TransportConfig is what a Transport needs. Peer and Pinned are required.
type TransportConfig struct {
	Base   http.RoundTripper // nil: one of our own, shared
	Peer   *url.URL          // scheme, host and an optional path prefix
	Pinned address.Address   // the agent's address, stored at pairing
	Hybrid Hybrid            // the post-quantum exchange
	// OnHybrid is called after the first handshake with the post-quantum
	// exchange, so that it can be pinned.
	OnHybrid func()
	Now      func() time.Time // nil: time.Now
	Rand     io.Reader        // nil: crypto/rand; safe for concurrent use
}

// Transport is the client (PROTOCOL.md section 8): an http.RoundTripper that
// sends every request for a URL on Peer through the channel, and never outside
// it. An answer that is not sealed is an error, never a response. Safe for
// concurrent use.
//
// A POST that starts a run or a dispatched task gets an Idempotency-Key unless
// the caller set one.
type Transport struct {
	config   TransportConfig
	prefix   string   // of every path on the peer
	session  *url.URL // where handshakes go
	calls    *url.URL // where calls go
	sessions *pool
	hybrid   atomic.Bool // the peer has shown that it has it
}

// NewTransport returns a transport without sessions. It panics when Peer or
// Pinned is missing.
func NewTransport(c TransportConfig) *Transport {
	if c.Peer == nil || c.Peer.Host == "" || c.Pinned.IsZero() {
		panic("channel: NewTransport without a peer and its address")
	}
	if c.Base == nil {
		c.Base = defaultBase()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	t := &Transport{config: c, prefix: strings.TrimSuffix(c.Peer.EscapedPath(), "/")}
	t.session, t.calls = endpoint(c.Peer, sessionPath), endpoint(c.Peer, callPath)
	t.sessions = newPool(c.Now, t.handshake)
	return t
}

func endpoint(peer *url.URL, path string) *url.URL {
	u := &url.URL{Scheme: peer.Scheme, Host: peer.Host, Path: strings.TrimSuffix(peer.Path, "/") + path}
	if peer.RawPath != "" {
		u.RawPath = strings.TrimSuffix(peer.RawPath, "/") + path
	}
	return u
}

// RoundTrip sends req through the channel. A streaming answer's body returns
// bytes as soon as their frame was opened, and ErrTruncated unless the answer
// was whole. Errors: ErrPeerMustUpgrade, ErrUnknownAgent, *IdentityMismatch,
// ErrSessionLost, ErrNotHybrid, ErrReplay, ErrTruncated, ErrReordered, ErrAfterFin,
// ErrDecrypt, ErrMalformed, ErrTooLarge, ErrForeignURL, ErrClosed,
// *StatusError, or what Base returns.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	plain := borrow(0)
	defer wipe(plain)
	repeat, err := t.inner(plain, req)
	if err != nil {
		return nil, err
	}
	if err := t.sessions.enter(req.Context()); err != nil {
		return nil, err
	}
	resp, err := t.call(req, *plain, repeat)
	if err != nil {
		t.sessions.leave()
	}
	return resp, err
}

// call sends the request, and once more on a new session when the peer lost
// the old one and running it twice does no harm: that answer can be forged.
func (t *Transport) call(req *http.Request, plaintext []byte, repeat bool) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		l, err := t.sessions.acquire(req.Context())
		if err != nil {
			return nil, err
		}
		resp, err := t.exchange(req, l, plaintext)
		if err == nil {
			return resp, nil
		}
		t.sessions.done(l)
		if lost := (*StatusError)(nil); !errors.As(err, &lost) || lost.Status != http.StatusUnauthorized || lost.Code != codeSessionUnknown {
			return nil, err
		}
		t.sessions.retire(l)
		if attempt > 0 || !repeat {
			return nil, ErrSessionLost
		}
	}
}

// exchange sends one envelope and reads the head of its answer. On success the
// response's body owns the call's places in the pool.
func (t *Transport) exchange(req *http.Request, l *line, plaintext []byte) (*http.Response, error) {
	seq := l.seq.Add(1)
	body, err := sealEnvelope(l.keys, plaintext, seq)
	if err != nil {
		return nil, err
	}
	rec, err := l.keys.record(seq)
	if err != nil {
		return nil, err
	}
	outer, err := t.post(req.Context(), t.calls, body)
	if err != nil {
		return nil, err
	}
	open := &opener{record: rec}
	leave := sync.OnceFunc(func() {
		t.sessions.done(l)
		t.sessions.leave()
	})
	kind, _, _ := mime.ParseMediaType(outer.Header.Get("Content-Type"))
	switch {
	case outer.StatusCode != http.StatusOK:
		return nil, callError(outer)
	case kind == eventContentType:
		resp := response(req, http.StatusOK, eventContentType)
		resp.ContentLength = -1
		resp.Body = newStream(outer.Body, open, leave)
		return resp, nil
	default:
		resp, err := buffered(req, outer, open)
		if err == nil {
			leave()
		}
		return resp, err
	}
}

func sealEnvelope(k *keys, plaintext []byte, seq uint64) ([]byte, error) {
	ct := borrow(len(plaintext) + tagSize)
	defer recycle(ct)
	var err error
	if *ct, err = k.sealRequest(*ct, plaintext, seq); err != nil {
		return nil, err
	}
	body := make([]byte, 0, len(*ct)*4/3+128)
	body = appendEnvelope(body, envelope{ct: *ct, seq: seq, sid: []byte(k.sid)})
	if len(body) > maxCall {
		return nil, ErrTooLarge
	}
	return body, nil
}

// defaultBase is http.DefaultTransport with buffers and idle connections for
// sealed calls. Compression is off: it would only delay what is flushed.
var defaultBase = sync.OnceValue(func() http.RoundTripper {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // a program replaced it, for its reasons
	}
	base = base.Clone()
	base.DisableCompression = true
	base.WriteBufferSize, base.ReadBufferSize = baseBuffer, baseBuffer
	base.MaxIdleConnsPerHost = maxOutstanding
	return base
})

// memory is a body whose type net/http knows to lie in memory, so that head and
// body leave in one write. That is worth more than reusing its buffer.
func memory(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }

// post sends a message of the protocol.
func (t *Transport) post(ctx context.Context, target *url.URL, body []byte) (*http.Response, error) {
	req := &http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type":    {"application/json"},
			"Accept":          {"application/json, text/event-stream"},
			"Accept-Encoding": {"identity"},
		},
		Body: memory(body), ContentLength: int64(len(body)),
		GetBody: func() (io.ReadCloser, error) { return memory(body), nil },
	}
	return t.config.Base.RoundTrip(req.WithContext(ctx))
}

func response(req *http.Request, status int, contentType string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Status: strconv.Itoa(status) + " " + http.StatusText(status),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, Request: req,
	}
	if contentType != "" {
		resp.Header.Set("Content-Type", contentType)
	}
	return resp
}

// buffered reads, opens and closes a buffered answer.
func buffered(req *http.Request, outer *http.Response, open *opener) (*http.Response, error) {
	defer outer.Body.Close() //nolint:errcheck // read to the end or given up
	raw, plain := borrow(0), borrow(0)
	defer recycle(raw)
	defer wipe(plain)
	var err error
	if *raw, err = readAll(*raw, outer.Body, outer.ContentLength, maxAnswer); err != nil {
		return nil, cut(err)
	}
	open.buf = *plain
	plaintext, err := open.whole(*raw)
	*plain = open.buf
	if err != nil {
		return nil, err
	}
	body := borrow(0)
	in, err := parseInnerReply(plaintext, *body)
	if err != nil {
		return nil, err
	}
	resp := response(req, in.status, in.contentType)
	resp.ContentLength = int64(len(in.body))
	if len(in.body) > 0 {
		*body = in.body
		lent := newLoan(body, wipe)
		resp.Body = lent.body(in.body)
		lent.drop()
	}
	return resp, nil
}

// callError turns an answer from outside the encryption into an error.
func callError(outer *http.Response) error {
	status := statusError(outer)
	if status.Status == http.StatusConflict && status.Code == codeReplay {
		return ErrReplay
	}
	return status
}

func statusError(outer *http.Response) *StatusError {
	body, _ := readAll(nil, outer.Body, outer.ContentLength, maxHello) // only its code matters, if any
	_ = outer.Body.Close()
	e := &StatusError{Status: outer.StatusCode}
	if s, err := strconv.ParseUint(outer.Header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	_ = parseObject(body, func(name string, d *jsontext.Decoder) error {
		switch {
		case name == "error" && d.PeekKind() == jsontext.KindString:
			_, err := setText(&e.text, d)
			return err
		case name == "error" && d.PeekKind() == jsontext.KindBeginObject:
			return readObject(d, func(name string, d *jsontext.Decoder) error {
				if name != "code" {
					return skipValue(d)
				}
				_, err := setText(&e.Code, d)
				return err
			})
		}
		return skipValue(d)
	})
	if !plainCode(e.Code) {
		e.Code = ""
	}
	return e
}

// plainCode keeps what anyone can have written out of logs and terminals.
func plainCode(s string) bool {
	return len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool { return c != '_' && (c < 'a' || c > 'z') })
}

// handshake makes a session with the pinned agent, or none.
func (t *Transport) handshake(ctx context.Context) (*line, error) {
	init, err := newInitiator(t.config.Pinned, t.config.Rand)
	if err != nil {
		return nil, err
	}
	defer init.drop()
	if t.config.Hybrid != HybridOff {
		if err := init.propose(t.config.Rand); err != nil {
			return nil, err
		}
	}
	outer, err := t.post(ctx, t.session, init.hello.append(nil))
	if err != nil {
		return nil, err
	}
	if outer.StatusCode != http.StatusOK {
		return nil, handshakeError(outer)
	}
	defer outer.Body.Close() //nolint:errcheck // read to the end or given up
	body, err := readAll(nil, outer.Body, outer.ContentLength, maxHello)
	if err != nil {
		return nil, cut(err)
	}
	keys, expires, err := init.finish(body, t.config.Now())
	if err != nil {
		return nil, err
	}
	switch {
	case keys.hybrid && !t.hybrid.Swap(true) && t.config.OnHybrid != nil:
		t.config.OnHybrid()
	case !keys.hybrid && (t.config.Hybrid == HybridRequired || t.hybrid.Load()):
		keys.destroy()
		return nil, ErrNotHybrid
	}
	return &line{keys: keys, expires: expires}, nil
}

// handshakeError tells a peer that has no channel from one that refused.
func handshakeError(outer *http.Response) error {
	status := statusError(outer)
	switch {
	case status.text == fault.UnknownAgentAddress.Text():
		return ErrUnknownAgent
	case status.Status == http.StatusNotFound, status.Status == http.StatusMethodNotAllowed, status.Status == http.StatusNotImplemented:
		return ErrPeerMustUpgrade
	}
	return status
}

// cut names an answer that ended too early; what ended it stays in the chain.
func cut(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated // never io.EOF in the chain: that would read as an end
	}
	return fmt.Errorf("%w (%w)", ErrTruncated, err)
}

// Close ends every session. Calls in flight finish; later ones fail with
// ErrClosed.
func (t *Transport) Close() { t.sessions.close() }

// CloseIdleConnections passes through, for http.Client.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.config.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
