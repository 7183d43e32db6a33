package server

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/secret"
)

// elsewhereDirectory says of every agent that another relay carries it.
type elsewhereDirectory struct{}

func (elsewhereDirectory) Announce(context.Context) error                   { return nil }
func (elsewhereDirectory) Withdraw(context.Context) error                   { return nil }
func (elsewhereDirectory) Claim(context.Context, []address.Address) error   { return nil }
func (elsewhereDirectory) Release(context.Context, []address.Address) error { return nil }
func (elsewhereDirectory) Refresh(context.Context, []address.Address) ([]address.Address, error) {
	return nil, nil
}

func (elsewhereDirectory) Owner(context.Context, address.Address) (machine, url string, err error) {
	return "m2", "http://two.internal", nil
}

func (elsewhereDirectory) Presence(context.Context, []address.Address) (map[address.Address]Presence, error) {
	return nil, nil
}

// roundTripper is a transport made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func hopSecret() secret.Bytes { return secret.New([]byte(strings.Repeat("h", 32))) }

// TestAnswerBeforeTheEnd: another relay may begin to answer before we have sent
// it the end of a body. net/http takes the body away as soon as an answer
// begins, and then the answer would be cut off too.
func TestAnswerBeforeTheEnd(t *testing.T) {
	t.Parallel()
	const first, second = "half of the body, ", "and the other half"
	r := newRig(t, func(c *Config) {
		c.Directory, c.InternalSecret = elsewhereDirectory{}, hopSecret()
		c.Transport = roundTripper(func(q *http.Request) (*http.Response, error) {
			raw := make([]byte, len(first))
			if _, err := io.ReadFull(q.Body, raw); err != nil || string(raw) != first {
				return nil, errors.New("the body did not arrive")
			}
			// Read when the head of the answer is with the caller.
			answer := io.MultiReader(strings.NewReader("it begins "), q.Body)
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(answer), Request: q}, nil
		})
	})
	body, send := io.Pipe()
	req := r.request(http.MethodPost, place(agentN(1), "/agents/x/run"), "")
	req.Body, req.ContentLength = body, -1
	go func() { _, _ = io.WriteString(send, first) }()
	resp, err := r.clientFrom("127.0.0.1").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	go func() {
		_, _ = io.WriteString(send, second)
		_ = send.Close()
	}()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "it begins "+second {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHopProof: each part is proven, and none can be said twice or for later.
func TestHopProof(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	s := New(Config{Domain: testDomain, Directory: elsewhereDirectory{}, InternalSecret: hopSecret(), Now: func() time.Time { return now }})
	t.Cleanup(func() { s.Drain(t.Context()) })
	const path, ip = "/agents/x/run?y=1", "203.0.113.9"
	host := agentN(1).addr.Lower() + "." + testDomain
	proven := func(change func(*http.Request)) int {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		unix := now.Unix()
		for name, value := range map[string]string{
			hopHeader: "1", hostHeader: host, pathHeader: path, ipHeader: ip,
			authHeader: strconv.FormatInt(unix, 10) + "." + hex.EncodeToString(proof(hopSecret(), r.Method, path, host, ip, unix)),
		} {
			r.Header.Set(name, value)
		}
		change(r)
		w := httptest.NewRecorder()
		s.Internal().ServeHTTP(w, r)
		return w.Code
	}
	at := func(unix int64) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set(authHeader, strconv.FormatInt(unix, 10)+"."+hex.EncodeToString(proof(hopSecret(), r.Method, path, host, ip, unix)))
		}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, change := range map[string]func(*http.Request){
		"as it is":            func(*http.Request) {},
		"as old as it may be": at(now.Unix() - hopSkew),
		"as new as it may be": at(now.Unix() + hopSkew),
	} {
		if code := proven(change); code != http.StatusBadGateway { // nobody is here
			t.Errorf("%s: %d", name, code)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"a method":          func(r *http.Request) { r.Method = http.MethodGet },
		"a path":            set(pathHeader, "/agents/x/run?y=2"),
		"a host":            set(hostHeader, agentN(2).addr.Lower()+"."+testDomain),
		"an address":        set(ipHeader, "203.0.113.8"),
		"moved parts":       func(r *http.Request) { r.Header.Set(pathHeader, path+host[:1]); r.Header.Set(hostHeader, host[1:]) },
		"a second too old":  at(now.Unix() - hopSkew - 1),
		"a second too new":  at(now.Unix() + hopSkew + 1),
		"no proof":          set(authHeader, strconv.FormatInt(now.Unix(), 10)+"."),
		"half a proof":      func(r *http.Request) { h := r.Header.Get(authHeader); r.Header.Set(authHeader, h[:len(h)-32]) },
		"no time":           set(authHeader, "."+strings.Repeat("0", 64)),
		"no hop":            set(hopHeader, "0"),
		"another's secret":  set(authHeader, strconv.FormatInt(now.Unix(), 10)+"."+hex.EncodeToString(proof(secret.New(make([]byte, 32)), http.MethodPost, path, host, ip, now.Unix()))),
		"everything absent": func(r *http.Request) { r.Header = http.Header{} },
	} {
		if code := proven(change); code != http.StatusForbidden {
			t.Errorf("%s: %d", name, code)
		}
	}
	alone := New(Config{Domain: testDomain, Now: s.c.Now})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	for name, value := range map[string]string{hopHeader: "1", hostHeader: host, pathHeader: path, ipHeader: ip, authHeader: strconv.FormatInt(now.Unix(), 10) + "." + hex.EncodeToString(proof(secret.Bytes{}, r.Method, path, host, ip, now.Unix()))} {
		r.Header.Set(name, value)
	}
	if alone.Internal().ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("a relay without a secret believes a proof with none: %d", w.Code)
	}
}
