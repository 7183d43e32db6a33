package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/signature"

	"osaurus/engine/address"
)

func outerRequest(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://host.test:1337"+callPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.7:4711"
	return r
}

// call is a client of the machine only: it seals one inner request and sends
// it to the handler.
type call struct {
	server *Server
	keys   *keys
	seq    uint64
}

func newCall(t testing.TB) *call {
	t.Helper()
	s := newTestServer(t)
	k := knownKeys(t, knownSID, knownC2S, knownS2C)
	admit(t, s, knownKeys(t, knownSID, knownC2S, knownS2C))
	return &call{server: s, keys: k}
}

func (c *call) envelope(t testing.TB, plaintext string) string {
	t.Helper()
	c.seq++
	body, err := sealEnvelope(c.keys, []byte(plaintext), c.seq)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (c *call) post(t testing.TB, body string, next http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	r := outerRequest(t)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	w := httptest.NewRecorder()
	c.server.ServeCall(w, r, next)
	return w
}

func (c *call) opener(t testing.TB) *opener {
	t.Helper()
	rec, err := c.keys.record(c.seq)
	if err != nil {
		t.Fatal(err)
	}
	return &opener{record: rec}
}

// buffered seals, sends and opens a buffered answer.
func (c *call) buffered(t testing.TB, plaintext string, next http.HandlerFunc) innerReply {
	t.Helper()
	w := c.post(t, c.envelope(t, plaintext), next)
	if w.Code != 200 || w.Header().Get("Content-Type") != jsonContentType || w.Header().Get(markHeader) != "1" {
		t.Fatalf("outer answer %d %v %s", w.Code, w.Header(), w.Body)
	}
	got, err := c.opener(t).whole(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseInnerReply(got, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func never(t testing.TB) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("the inner handler ran") }
}

// TestCallRefusals: every row of PROTOCOL.md section 4 with its exact answer.
func TestCallRefusals(t *testing.T) {
	t.Parallel()
	const (
		unknown   = `{"error":{"code":"secure_session_unknown","message":"Unknown or expired secure session","type":"secure_channel_error"}}`
		replay    = `{"error":{"code":"secure_replay","message":"Sequence number was already used","type":"secure_channel_error"}}`
		malformed = `{"error":{"code":"secure_malformed","message":"Malformed secure envelope","type":"secure_channel_error"}}`
		decrypt   = `{"error":{"code":"secure_decrypt_failed","message":"Could not decrypt the secure envelope","type":"secure_channel_error"}}`
	)
	const least = `{"method":"GET","path":"/"}`
	for name, x := range map[string]struct {
		body   func(t *testing.T, c *call) string
		status int
		want   string
	}{
		"not JSON": {func(*testing.T, *call) string { return "hello" }, 400, malformed},
		"unknown session": {func(t *testing.T, c *call) string {
			return strings.Replace(c.envelope(t, least), knownSID, "AAAAAAAAAAAAAAAAAAAAAA", 1)
		}, 401, unknown},
		"sequence zero": {func(t *testing.T, c *call) string {
			return strings.Replace(c.envelope(t, least), `"seq":1`, `"seq":0`, 1)
		}, 409, replay},
		"not authentic": {func(t *testing.T, c *call) string {
			return strings.Replace(c.envelope(t, least), `"seq":1`, `"seq":2`, 1)
		}, 400, decrypt},
		"inner not JSON":    {func(t *testing.T, c *call) string { return c.envelope(t, "x") }, 400, malformed},
		"inner path":        {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"GET","path":"health"}`) }, 400, malformed},
		"inner path empty":  {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"GET","path":""}`) }, 400, malformed},
		"inner path host":   {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"GET","path":"http://x/"}`) }, 400, malformed},
		"inner method":      {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"G T","path":"/"}`) }, 400, malformed},
		"inner empty":       {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"","path":"/"}`) }, 400, malformed},
		"the channel again": {func(t *testing.T, c *call) string { return c.envelope(t, `{"method":"POST","path":"/secure/call"}`) }, 400, malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCall(t)
			w := c.post(t, x.body(t, c), never(t))
			if w.Code != x.status || w.Body.String() != x.want || w.Header().Get("Content-Type") != jsonContentType || w.Header().Get(markHeader) != "" {
				t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
			}
		})
	}
	t.Run("replayed", func(t *testing.T) {
		t.Parallel()
		c := newCall(t)
		body := c.envelope(t, least)
		if w := c.post(t, body, func(http.ResponseWriter, *http.Request) {}); w.Code != 200 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		if w := c.post(t, body, never(t)); w.Code != 409 || w.Body.String() != replay {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("after CloseAgent", func(t *testing.T) {
		t.Parallel()
		c := newCall(t)
		c.server.CloseAgent(testSigner(t, bob).Address())
		if w := c.post(t, c.envelope(t, least), func(http.ResponseWriter, *http.Request) {}); w.Code != 200 {
			t.Fatal("another agent's session ended")
		}
		c.server.CloseAgent(testSigner(t, alice).Address())
		if w := c.post(t, c.envelope(t, least), never(t)); w.Code != 401 || w.Body.String() != unknown {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("after Close", func(t *testing.T) {
		t.Parallel()
		c := newCall(t)
		c.server.Close()
		if w := c.post(t, c.envelope(t, least), never(t)); w.Code != 401 {
			t.Errorf("got %d", w.Code)
		}
	})
}

// TestBodyLimits sends limit and limit+1 bytes, declared and not, to both
// routes, and readers that fail.
func TestBodyLimits(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name    string
		limit   int
		serve   func(*Server, http.ResponseWriter, *http.Request)
		refused string // what a full body of nonsense meets
	}{
		{"session", maxHello, func(s *Server, w http.ResponseWriter, r *http.Request) { s.ServeSession(w, r, "x") }, `{"error":"Invalid handshake request"}`},
		{"call", maxCall, func(s *Server, w http.ResponseWriter, r *http.Request) { s.ServeCall(w, r, nil) }, "secure_malformed"},
	} {
		for _, declared := range []bool{true, false} {
			for _, over := range []int{0, 1} {
				t.Run(fmt.Sprintf("%s %v +%d", x.name, declared, over), func(t *testing.T) {
					t.Parallel()
					r := outerRequest(t)
					r.Body = io.NopCloser(io.LimitReader(zeros{}, int64(x.limit+over)))
					r.ContentLength = -1
					if declared {
						r.ContentLength = int64(x.limit + over)
					}
					w := httptest.NewRecorder()
					x.serve(newTestServer(t), w, r)
					status, want := 400, x.refused
					if over > 0 {
						status, want = 413, fmt.Sprintf(`{"error":{"message":"Request body too large (%d > %d bytes)","type":"payload_too_large"}}`, x.limit+1, x.limit)
					}
					if w.Code != status || !strings.Contains(w.Body.String(), want) {
						t.Errorf("got %d %s", w.Code, w.Body)
					}
				})
			}
		}
		t.Run(x.name+" reader's fault", func(t *testing.T) {
			t.Parallel()
			r := outerRequest(t)
			r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(fault.New(fault.ServerOverloaded, nil))), -1
			w := httptest.NewRecorder()
			x.serve(newTestServer(t), w, r)
			if w.Code != 503 || !strings.Contains(w.Body.String(), "server_overloaded") {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
		t.Run(x.name+" reader fails", func(t *testing.T) {
			t.Parallel()
			r := outerRequest(t)
			r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(errors.New("reset"))), -1
			w := httptest.NewRecorder()
			x.serve(newTestServer(t), w, r)
			if w.Code != 400 || !strings.Contains(w.Body.String(), x.refused) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestInnerRequest shows what the inner handler sees.
func TestInnerRequest(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	type key struct{}
	plaintext := `{"accept":"a/b","authorization":"Bearer k","body":"aGk","contentType":"c/d","headers":{"idempotency-key":"i","X-Osaurus-Agent-Id":"z"},"method":"PUT","path":"/v1/agents/%41?q=1&r=%20"}`
	body := c.envelope(t, plaintext)
	r := outerRequest(t)
	r = r.WithContext(context.WithValue(r.Context(), key{}, "kept"))
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	r.Header.Set("Origin", "https://outer.test")
	r.Header.Set("Authorization", "Bearer outer")
	r.Header.Set("User-Agent", "outer")
	if Inside(r.Context()) {
		t.Error("the outer request counts as inside")
	}
	ran := false
	c.server.ServeCall(httptest.NewRecorder(), r, http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		ran = true
		got, err := io.ReadAll(in.Body)
		if err != nil || string(got) != "hi" || in.ContentLength != 2 {
			t.Errorf("body %q %d %v", got, in.ContentLength, err)
		}
		if !Inside(in.Context()) || in.Context().Value(key{}) != "kept" {
			t.Error("the context is not the outer one, marked")
		}
		if in.Method != "PUT" || in.RequestURI != "/v1/agents/%41?q=1&r=%20" || in.URL.Path != "/v1/agents/A" || in.URL.RawQuery != "q=1&r=%20" || in.URL.Host != "" {
			t.Errorf("target %s %+v", in.RequestURI, in.URL)
		}
		if in.Host != "host.test:1337" || in.RemoteAddr != "192.0.2.7:4711" || in.Proto != "HTTP/1.1" {
			t.Errorf("host %q, peer %q", in.Host, in.RemoteAddr)
		}
		want := http.Header{
			"Accept": {"a/b"}, "Authorization": {"Bearer k"}, "Content-Type": {"c/d"}, "Idempotency-Key": {"i"},
			"X-Osaurus-Agent-Id": {"z"}, "Origin": {"https://outer.test"},
		}
		if !reflect.DeepEqual(in.Header, want) {
			t.Errorf("headers %v", in.Header)
		}
	}))
	if !ran {
		t.Fatal("the inner handler did not run")
	}
}

// TestInnerHeaders: nothing sealed can say where a request came from, and what
// the outer request says about it cannot be shaken off.
func TestInnerHeaders(t *testing.T) {
	t.Parallel()
	dropped := []string{
		"Host", "host", "CONTENT-LENGTH", "Connection", "Authorization", "accept", "Content-Type", "X-Osaurus-Relay-Origin",
		"Origin", "Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Whatever", "X-Real-IP", "Cookie", "Transfer-Encoding", "TE", "Upgrade",
	}
	inner := &innerRequest{method: "GET", path: "/"}
	for _, name := range dropped {
		inner.headers = append(inner.headers, header{name, "inner"})
	}
	inner.headers = append(inner.headers, header{"X-Kept", "inner"}, header{"Via", "inner"})
	req, err := inner.request(outerRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := (http.Header{"X-Kept": {"inner"}, "Via": {"inner"}}); !reflect.DeepEqual(req.Header, want) {
		t.Errorf("got %v", req.Header)
	}

	outer := outerRequest(t)
	for _, name := range []string{"Origin", "Forwarded", "X-Forwarded-For", "X-Real-Ip", "X-Osaurus-Relay-Origin", "Via", "Sec-Fetch-Site"} {
		outer.Header[name] = []string{"outer", "twice"}
	}
	if req, err = inner.request(outer); err != nil {
		t.Fatal(err)
	}
	for name, values := range outer.Header {
		if !slices.Equal(req.Header[name], values) {
			t.Errorf("%s is %v", name, req.Header[name])
		}
	}
	req.Header["Origin"][0] = "changed"
	if outer.Header.Get("Origin") != "outer" {
		t.Error("the two requests share memory")
	}
}

func TestInnerHeadersThatAreNone(t *testing.T) {
	t.Parallel()
	for _, h := range [][]header{
		{{"", "v"}}, {{"a b", "v"}}, {{"a:", "v"}}, {{"ä", "v"}}, {{"a\r\nb", "v"}},
		{{"a", "v\r\nX: y"}}, {{"a", "v\x00"}}, {{"a", "\x7f"}}, {{"a", "1"}, {"A", "2"}},
	} {
		in := innerRequest{method: "GET", path: "/", headers: h}
		if _, err := in.request(outerRequest(t)); !errors.Is(err, fault.SecureMalformed) {
			t.Errorf("%q: %v", h, err)
		}
	}
	for _, in := range []innerRequest{
		{authorization: "Bearer x\r\nHost: y"}, {accept: "a\n"}, {contentType: "\x01"}, {method: "GET\r\n"}, {method: "GÉT"},
	} {
		in.path = "/"
		if in.method == "" {
			in.method = "GET"
		}
		if _, err := in.request(outerRequest(t)); !errors.Is(err, fault.SecureMalformed) {
			t.Errorf("%+v: %v", in, err)
		}
	}
	ok := innerRequest{method: "M-SEARCH", path: "/", authorization: "Bearer\tü", headers: []header{{"x-!#$%&'*+.^_`|~", "\tü"}}}
	if _, err := ok.request(outerRequest(t)); err != nil {
		t.Error(err)
	}
}

func TestPathsThatReachTheChannel(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"/secure", "/secure/", "/secure/call", "/secure/session", "/secure/anything", "/secure?x", "/secure/call?x=/health",
		"/v1/secure/call", "/api/secure/call", "/v1/api/secure/call", "/v1/secure", "/SECURE/call", "/Secure/Session", "/V1/secure",
		"/%73ecure/call", "/secure%2Fcall", "/secure%2fcall", "/%2Fsecure/call", "//secure/call", "///secure", "/./secure", "/x/../secure/call",
		"/v1//secure/call", "/v1/./secure", "/v1/%2e%2e/secure", "/secure/../health", "/%73ecure/../x", "/secure/.", "/%zz", "/%",
	} {
		in := innerRequest{method: "GET", path: p}
		if _, err := in.request(outerRequest(t)); !errors.Is(err, fault.SecureMalformed) {
			t.Errorf("%s passed: %v", p, err)
		}
	}
	for _, p := range []string{
		"/", "/?x", "/health", "/secured", "/secure-notes", "/agents/secure", "/agents/secure/call", "/v1x/secure", "/v1/api", "/?path=/secure/call",
		"/apisecure", "/v1/agents/%2Fsecure", "/%2573ecure", "/a//b", "/*",
	} {
		in := innerRequest{method: "GET", path: p}
		req, err := in.request(outerRequest(t))
		if err != nil || req.RequestURI != p {
			t.Errorf("%s was refused: %v", p, err)
		}
	}
}

// TestHandshakeRefusals: every row of PROTOCOL.md section 2 with its exact
// answer.
func TestHandshakeRefusals(t *testing.T) {
	t.Parallel()
	i, err := newInitiator(testSigner(t, alice).Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	good := string(i.hello.append(nil))
	failing := func(err error) func(*Config) {
		return func(c *Config) {
			c.Signer = func(context.Context, address.Address) (identity.Signer, error) { return nil, err }
		}
	}
	for name, x := range map[string]struct {
		body   string
		change func(*Config)
		status int
		want   string
	}{
		"not JSON":         {"x", nil, 400, "Invalid handshake request"},
		"version":          {strings.Replace(good, `"v":1`, `"v":2`, 1), nil, 400, "Unsupported secure channel version"},
		"lengths":          {strings.Replace(good, `"nonce":"`, `"nonce":"A`, 1), nil, 400, "Malformed handshake"},
		"low order":        {strings.Replace(good, i.hello.encPub, strings.Repeat("A", 43), 1), nil, 400, "Malformed handshake"},
		"unknown agent":    {strings.Replace(good, i.hello.agent.Lower(), "0x"+strings.Repeat("1", 40), 1), nil, 404, "Unknown agent address"},
		"locked":           {good, failing(fault.New(fault.KeystoreLocked, nil)), 503, "Host identity is unavailable right now"},
		"no identity":      {good, failing(fault.HostIdentityUnavailable), 503, "Host identity is unavailable right now"},
		"signer fails":     {good, failing(errors.New("disk")), 500, "Handshake failed"},
		"corrupt keystore": {good, failing(fault.New(fault.KeystoreCorrupt, nil)), 500, "Handshake failed"},
		"wrong signer": {good, func(c *Config) {
			c.Signer = func(context.Context, address.Address) (identity.Signer, error) { return testSigner(t, bob), nil }
		}, 500, "Handshake failed"},
		"signing fails": {good, func(c *Config) {
			c.Signer = func(context.Context, address.Address) (identity.Signer, error) {
				return brokenSigner{testSigner(t, alice)}, nil
			}
		}, 500, "Handshake failed"},
		"rotated meanwhile": {good, func(c *Config) {
			known, asked := c.Signer, 0
			c.Signer = func(ctx context.Context, a address.Address) (identity.Signer, error) {
				if asked++; asked > 1 {
					return nil, fault.UnknownAgentAddress
				}
				return known(ctx, a)
			}
		}, 404, "Unknown agent address"},
		"no randomness": {good, func(c *Config) { c.Rand = iotest.ErrReader(errors.New("none")) }, 500, "Handshake failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestServer(t).config
			if x.change != nil {
				x.change(&c)
			}
			s := NewServer(c)
			w := httptest.NewRecorder()
			s.ServeSession(w, httptest.NewRequestWithContext(t.Context(), "POST", sessionPath, strings.NewReader(x.body)), "x")
			if want := `{"error":"` + x.want + `"}`; w.Code != x.status || w.Body.String() != want || w.Header().Get("Content-Type") != jsonContentType {
				t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
			}
			if s.sessions.size() != 0 {
				t.Error("a refused handshake left a session")
			}
		})
	}
}

type brokenSigner struct{ keySigner }

func (brokenSigner) Sign(context.Context, signature.Digest) (signature.Signature, error) {
	return signature.Signature{}, errors.New("device unplugged")
}

func TestHandshakeAnswer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	i, err := newInitiator(testSigner(t, alice).Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeSession(w, httptest.NewRequestWithContext(t.Context(), "POST", sessionPath, strings.NewReader(string(i.hello.append(nil)))), "x")
	if w.Code != 200 || w.Header().Get("Content-Type") != jsonContentType {
		t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["expiresAt"] != 1_800_003_600.0 || got["v"] != 1.0 || len(got) != 5 {
		t.Errorf("got %v", got)
	}
	if _, _, err := i.finish(w.Body.Bytes(), s.config.Now()); err != nil {
		t.Error(err)
	}
	if s.sessions.size() != 1 || s.sessions.sources["x"] != 1 {
		t.Error("the session does not count against its source")
	}
}

func TestNewServerNeedsASigner(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewServer(Config{})
}
