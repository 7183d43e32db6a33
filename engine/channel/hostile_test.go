package channel

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
)

// TestSessionLost: what the peer forgot is resent once, and only when running
// it twice does no harm.
func TestSessionLost(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		method, path, key string
		resent            bool
	}{
		"GET": {"GET", "/", "", true}, "HEAD": {"HEAD", "/", "", true}, "POST": {"POST", "/", "", false}, "DELETE": {"DELETE", "/", "", false},
		"POST with a key": {"POST", "/", "k", true}, "run": {"POST", "/agents/x/run", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bodies, keys []string
			h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				bodies, keys = append(bodies, string(b)), append(keys, r.Header.Get(idempotencyHeader))
			})
			tr := h.transport(t)
			if _, _, err := trip(t, tr, newRequest(t, "GET", h.URL+"/", "")); err != nil {
				t.Fatal(err)
			}
			h.channel.Close()
			req := newRequest(t, x.method, h.URL+x.path, "body")
			if x.key != "" {
				req.Header.Set(idempotencyHeader, x.key)
			}
			status, _, err := trip(t, tr, req)
			if x.resent && (status != 200 || err != nil || len(bodies) != 2 || bodies[1] != "body" || (x.key != "" && keys[1] != x.key)) {
				t.Errorf("got %d %v, bodies %q", status, err, bodies)
			}
			if !x.resent && (!errors.Is(err, ErrSessionLost) || len(bodies) != 1) {
				t.Errorf("got %d %v, bodies %q", status, err, bodies)
			}
			// Either way the next request finds a new session.
			if _, _, err := trip(t, tr, newRequest(t, "POST", h.URL+"/", "")); err != nil || h.handshakes.Load() != 2 {
				t.Errorf("next: %v after %d handshakes", err, h.handshakes.Load())
			}
			idle(t, tr)
		})
	}
}

// TestSessionLostForever: a path that forges the loss again and again costs
// one more handshake, not a loop.
func TestSessionLostForever(t *testing.T) {
	t.Parallel()
	h := newHost(t, ok)
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != callPath {
			return false
		}
		h.calls.Add(1)
		w.WriteHeader(401)
		_, _ = io.WriteString(w, `{"error":{"code":"secure_session_unknown","message":"","type":""}}`)
		return true
	})
	tr := h.transport(t)
	if _, _, err := trip(t, tr, newRequest(t, "GET", h.URL+"/", "")); !errors.Is(err, ErrSessionLost) {
		t.Errorf("got %v", err)
	}
	if h.calls.Load() != 2 || h.handshakes.Load() != 2 {
		t.Errorf("%d calls, %d handshakes", h.calls.Load(), h.handshakes.Load())
	}
	idle(t, tr)
}

// TestForgedAnswers: no answer from outside the encryption becomes a response.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		path, kind, body string
		status           int
		check            func(error) bool
	}{
		"call: plain 200":            {callPath, "application/json", `{"ok":true}`, 200, is(ErrMalformed)},
		"call: empty 200":            {callPath, "", "", 200, is(ErrMalformed)},
		"call: plain event stream":   {callPath, "text/event-stream", "data: {\"choices\":[]}\n\ndata: [DONE]\n\n", 200, is(ErrMalformed)},
		"call: empty event stream":   {callPath, "text/event-stream", "", 200, is(ErrTruncated)},
		"call: forged frame":         {callPath, jsonContentType, `{"ct":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","fin":true,"seq":0}`, 200, is(ErrDecrypt)},
		"call: no fin":               {callPath, jsonContentType, `{"ct":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","seq":0}`, 200, is(ErrDecrypt)},
		"call: replay":               {callPath, jsonContentType, `{"error":{"code":"secure_replay"}}`, 409, is(ErrReplay)},
		"call: other conflict":       {callPath, jsonContentType, `{"error":"duplicate_request"}`, 409, status(409, "")},
		"call: decrypt":              {callPath, jsonContentType, `{"error":{"code":"secure_decrypt_failed"}}`, 400, status(400, "secure_decrypt_failed")},
		"call: unknown, not 401":     {callPath, jsonContentType, `{"error":{"code":"secure_session_unknown"}}`, 400, status(400, "secure_session_unknown")},
		"call: 404":                  {callPath, "text/plain", "Not Found", 404, status(404, "")},
		"call: redirect":             {callPath, "", "", 307, status(307, "")},
		"call: 502 page":             {callPath, "text/html", "<html>" + strings.Repeat("x", 100_000), 502, status(502, "")},
		"call: odd code":             {callPath, "", `{"error":{"code":"\u001b[31mplanted","more":[1,{"code":"x"}]}}`, 400, status(400, "")},
		"session: none":              {sessionPath, "text/plain", "Not Found", 404, is(ErrPeerMustUpgrade)},
		"session: wrong method":      {sessionPath, "", "", 405, is(ErrPeerMustUpgrade)},
		"session: unknown agent":     {sessionPath, jsonContentType, `{"error":"Unknown agent address"}`, 404, is(ErrUnknownAgent)},
		"session: limited":           {sessionPath, jsonContentType, `{"error":"Too many pairing attempts. Try again shortly."}`, 429, status(429, "")},
		"session: locked":            {sessionPath, jsonContentType, `{"error":"Host identity is unavailable right now"}`, 503, status(503, "")},
		"session: plain 200":         {sessionPath, "text/html", "<html>", 200, is(ErrMalformed)},
		"session: endless":           {sessionPath, "", strings.Repeat("x", maxHello+1), 200, is(ErrTooLarge)},
		"session: redirect to plain": {sessionPath, "", "", 302, status(302, "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, ok)
			h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != x.path {
					return false
				}
				w.Header().Set("Content-Type", x.kind)
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Location", "/plain")
				w.WriteHeader(x.status)
				_, _ = io.WriteString(w, x.body)
				return true
			})
			tr := h.transport(t)
			_, body, err := trip(t, tr, newRequest(t, "POST", h.URL+"/", "x"))
			if !x.check(err) || body != "" || strings.Contains(err.Error(), "planted") {
				t.Errorf("got %q, %v", body, err)
			}
			idle(t, tr)
		})
	}
}

func is(want error) func(error) bool {
	return func(err error) bool { return errors.Is(err, want) }
}

func status(code int, name string) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*StatusError](err)
		return ok && e.Status == code && e.Code == name && e.RetryAfter == 7*time.Second && strings.Contains(e.Error(), fmt.Sprint(code))
	}
}

// TestTamperedAnswers changes real answers on the way.
func TestTamperedAnswers(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		stream bool
		change func(string) string
		want   error
	}{
		"untouched":   {true, func(s string) string { return s }, nil},
		"end cut off": {true, func(s string) string { return s[:strings.LastIndex(s, "data:")] }, ErrTruncated},
		"swapped": {true, func(s string) string {
			e := strings.SplitAfter(s, "\n\n")
			e[0], e[1] = e[1], e[0]
			return strings.Join(e, "")
		}, ErrReordered},
		"repeated":         {true, func(s string) string { e := strings.SplitAfter(s, "\n\n"); return e[0] + s }, ErrReordered},
		"appended":         {true, func(s string) string { e := strings.SplitAfter(s, "\n\n"); return s + e[0] }, ErrAfterFin},
		"bits":             {true, func(s string) string { return strings.Replace(s, `{"ct":"`, `{"ct":"AAAA`, 1) }, ErrDecrypt},
		"buffered, bits":   {false, func(s string) string { return strings.Replace(s, `{"ct":"`, `{"ct":"AAAA`, 1) }, ErrDecrypt},
		"buffered, no fin": {false, func(s string) string { return strings.Replace(s, `"fin":true,`, "", 1) }, ErrDecrypt},
		"buffered, twice":  {false, func(s string) string { return s + s }, ErrMalformed},
		"buffered, cut":    {false, func(s string) string { return s[:len(s)/2] }, ErrMalformed},
		"type changed":     {false, func(s string) string { return "data: " + s + "\n\n" }, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
				if x.stream {
					w.Header().Set("Content-Type", "text/event-stream")
				}
				_, _ = io.WriteString(w, "one")
				_, _ = io.WriteString(w, "two")
			})
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				h.Config.Handler.ServeHTTP(rec, r)
				w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
				text := rec.Body.String()
				if r.URL.Path == callPath {
					text = x.change(text)
				}
				_, _ = io.WriteString(w, text)
			}))
			defer proxy.Close()
			h.URL = proxy.URL
			_, body, err := trip(t, h.transport(t), newRequest(t, "GET", proxy.URL+"/", ""))
			if !errors.Is(err, x.want) || (err == nil && body != "onetwo") || !strings.HasPrefix("onetwo", body) {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
}

// TestWrongHost: another agent's host answers.
func TestWrongHost(t *testing.T) {
	t.Parallel()
	h := newHost(t, ok)
	want, got := testSigner(t, alice).Address(), testSigner(t, bob).Address()
	// The host signs every handshake with its own key.
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		hello, err := parseHello(body)
		if err != nil {
			t.Error(err)
		}
		resp, err := newResponder(hello, time.Now(), nil)
		if err != nil {
			t.Error(err)
		}
		answer, _ := resp.finish(testSigner(t, bob).key.Sign(resp.digest()))
		_, _ = w.Write(answer)
		return true
	})
	_, _, err := trip(t, h.transport(t), newRequest(t, "GET", h.URL+"/", ""))
	mismatch, ok := errors.AsType[*IdentityMismatch](err)
	if !ok || mismatch.Want != want || mismatch.Got != got {
		t.Fatalf("got %v", err)
	}
	for _, a := range []address.Address{want, got} {
		if !strings.Contains(err.Error(), a.String()) {
			t.Errorf("%q does not show %s", err, a)
		}
	}
	if h.calls.Load() != 0 {
		t.Error("a call was sent to the wrong host")
	}
}
