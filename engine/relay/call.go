package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// call is one request of the relay that is being served.
type call struct {
	id     string
	agent  Agent
	cancel context.CancelFunc
	answer *answer
	bytes  int64 // of the request's body
}

// Answers that are ours and not the handler's.
const (
	busyBody    = `{"error":"host_busy","message":"Too many concurrent relay requests; retry shortly."}`
	pathBody    = `{"error":"invalid_path"}`
	foreignBody = `{"error":"agent_offline"}`
	failedBody  = `{"error":"local_server_error"}`
	binaryBody  = `{"error":"binary_response_unsupported"}`
)

func refusal(id string, status int, body string) *wire.Frame {
	return &wire.Frame{Type: wire.Response, ID: id, Status: status, Headers: map[string]string{"content-type": "application/json"}, Body: &body}
}

// request serves a request frame, or refuses it at once.
func (s *session) request(ctx context.Context, f wire.Frame) {
	agent, ours := s.agentOf(f.Headers["x-agent-address"])
	if !ours {
		s.out.urgent(refusal(f.ID, http.StatusBadGateway, foreignBody))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := buildRequest(ctx, f, agent)
	if err != nil {
		cancel()
		s.out.urgent(refusal(f.ID, http.StatusBadGateway, pathBody))
		return
	}
	c := &call{id: f.ID, agent: agent, cancel: cancel, answer: newAnswer(f.ID, s.out), bytes: req.ContentLength}
	if err := s.admit(c); err != nil {
		cancel()
		if errors.Is(err, errBusy) {
			s.out.urgent(refusal(f.ID, http.StatusServiceUnavailable, busyBody))
		}
		return
	}
	s.work.Go(func() {
		defer s.leave(c)
		defer context.AfterFunc(ctx, c.answer.abandon)()
		s.l.t.handle(c.answer, req)
		c.answer.wait()
	})
}

var (
	errBusy  = errors.New("relay: too many requests at once")
	errAgain = errors.New("relay: a request with an id that is in use")
)

func (s *session) admit(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.calls[c.id]; again {
		return errAgain
	}
	if len(s.calls) >= MaxInFlight {
		return errBusy
	}
	if s.l.t.bodies.Add(c.bytes) > maxBodies {
		s.l.t.bodies.Add(-c.bytes)
		return errBusy
	}
	s.calls[c.id] = c
	return nil
}

func (s *session) leave(c *call) {
	c.cancel()
	s.l.t.bodies.Add(-c.bytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c.id)
}

// handle runs the handler. What it does not finish is cut off, not ended well.
func (t *Tunnel) handle(w *answer, r *http.Request) {
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // the value that net/http compares too
			t.c.Log("relay_handler_panicked", slog.String("path", r.URL.Path))
		}
		w.finish(p != nil)
	}()
	t.c.Handler.ServeHTTP(w, r)
}

// agentOf finds whom a request is for. The relay says it in a header; only an
// agent that this socket carries counts.
func (s *session) agentOf(text string) (Agent, bool) {
	a, err := address.Parse(strings.ToLower(text))
	if err != nil {
		return Agent{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	agent, ok := s.held[a]
	return agent, ok
}

// dropped are headers that belong to a connection, or that only the host may
// set (relay.md section 13, G2).
var dropped = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true, "proxy-authorization": true, "te": true, "trailer": true, "transfer-encoding": true,
	"upgrade": true, "content-length": true, "accept-encoding": true, "host": true, "expect": true, "x-agent-address": true,
}

var errPath = errors.New("relay: the path of a request does not begin with a slash")

// buildRequest turns a frame into a request for the handler. Nothing in it can
// name a host, and nothing in it can claim to be of this machine.
func buildRequest(ctx context.Context, f wire.Frame, agent Agent) (*http.Request, error) {
	if !strings.HasPrefix(f.Path, "/") || !validMethod(f.Method) {
		return nil, errPath
	}
	u, err := url.ParseRequestURI(f.Path)
	if err != nil || u.Host != "" || u.Scheme != "" {
		return nil, errPath
	}
	body := ""
	if f.Body != nil {
		body = *f.Body
	}
	if f.Encoding == "base64" {
		raw, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return nil, err
		}
		body = string(raw)
	}
	req := &http.Request{
		Method: f.Method, URL: u, RequestURI: f.Path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: agent.Address.Lower() + ".relay.invalid",
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
	hop := map[string]bool{}
	for name, value := range f.Headers {
		if strings.EqualFold(name, "connection") {
			for token := range strings.SplitSeq(value, ",") {
				hop[strings.ToLower(strings.TrimSpace(token))] = true
			}
		}
	}
	for name, value := range f.Headers {
		lower := strings.ToLower(name)
		if dropped[lower] || hop[lower] || strings.HasPrefix(lower, "x-osaurus-") || strings.HasPrefix(lower, "sec-websocket-") || !validHeader(name, value) {
			continue
		}
		req.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	req.Header.Set("X-Osaurus-Agent-Id", agent.ID)
	return req.WithContext(ctx), nil
}

// validMethod accepts a token (RFC 9110 section 5.6.2) of ordinary length.
func validMethod(m string) bool { return m != "" && len(m) <= 32 && token(m) }

func validHeader(name, value string) bool {
	return name != "" && token(name) && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}
