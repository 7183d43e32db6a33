package runner

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/fault"
)

// roundTrip is a transport without a network, for tests in fake time.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slow answers with what is written to the pipe; a cancelled request breaks it.
func slow(t *testing.T) (Endpoint, *io.PipeWriter) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	return Endpoint{BaseURL: "http://provider.invalid", Model: "m", Client: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		context.AfterFunc(req.Context(), func() { _ = w.CloseWithError(req.Context().Err()) })
		return &http.Response{StatusCode: http.StatusOK, Body: r, Request: req, Header: http.Header{}}, nil
	})}}, w
}

func withEndpoint(e Endpoint) func(*Config) {
	return func(c *Config) { c.Endpoint = func(context.Context) (Endpoint, error) { return e, nil } }
}

// TestStall: a provider may be silent for StallTimeout and not longer.
func TestStall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pause time.Duration
		cut   bool
	}{"just in time": {StallTimeout - time.Nanosecond, false}, "too long": {StallTimeout + time.Nanosecond, true}} {
		synctest.Test(t, func(t *testing.T) {
			e, w := slow(t)
			r := newRunner(t, withEndpoint(e))
			var writer sync.WaitGroup
			writer.Go(func() {
				_, _ = io.WriteString(w, piece("one"))
				<-time.After(c.pause)
				_, _ = io.WriteString(w, piece("two")+finish+"data: [DONE]\n\n")
			})
			out := run(t, r, Caller{}, ask(t, "", ""))
			writer.Wait()
			if cut := strings.Contains(out, "provider_failed"); cut != c.cut || strings.Contains(out, "two") == c.cut {
				t.Errorf("%s:\n%s", name, out)
			}
			if pings := strings.Count(out, ": ping\n\n"); pings != int(StallTimeout/Ping)-1 && pings != int(StallTimeout/Ping) {
				t.Errorf("%s: %d pings", name, pings)
			}
		})
	}
}

// TestStallBeforeTheAnswer: no head of an answer either.
func TestStallBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := Endpoint{BaseURL: "http://provider.invalid", Model: "m", Client: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})}}
		r := newRunner(t, withEndpoint(e))
		for _, stream := range []bool{false, true} {
			began, pings := time.Now(), 0
			answer, err := r.Complete(t.Context(), Caller{}, ask(t, "", ""), stream)
			if stream {
				err = answer.Events(func(event []byte, _ bool) error {
					pings += strings.Count(string(event), ": ping\n\n")
					return nil
				})
				answer.Close()
			}
			if !errors.Is(err, fault.ProviderFailed) || !errors.Is(err, errStalled) || time.Since(began) != StallTimeout {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			if want := int(StallTimeout / Ping); stream && pings < want-1 {
				t.Errorf("%d comments, want %d", pings, want)
			}
		}
	})
}

// TestPassThroughStalls: the pass-through has the same bound.
func TestPassThroughStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, w := slow(t)
		r := newRunner(t, withEndpoint(e))
		answer, err := r.Complete(t.Context(), Caller{}, ask(t, "", ""), true)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Close()
		go func() { _, _ = io.WriteString(w, piece("one")) }()
		got := 0
		err = answer.Events(func(event []byte, _ bool) error {
			if !strings.HasPrefix(string(event), ":") {
				got++
			}
			return nil
		})
		if !errors.Is(err, errStalled) || got != 1 {
			t.Errorf("%d events, %v", got, err)
		}
	})
}

func TestPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, w := slow(t)
		r := newRunner(t, withEndpoint(e))
		go func() {
			<-time.After(3*Ping + time.Second)
			_, _ = io.WriteString(w, piece("late")+"data: [DONE]\n\n")
		}()
		out := run(t, r, Caller{}, ask(t, "", ""))
		if strings.Count(out, ": ping\n\n") != 3 || strings.Index(out, "late") < strings.LastIndex(out, ": ping") {
			t.Errorf("got\n%s", out)
		}
	})
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"http://h:1": "http://h:1/v1/models", "http://h:1/": "http://h:1/v1/models", "http://h:1/v1": "http://h:1/v1/models",
		"http://h:1/v1/": "http://h:1/v1/models", "https://h/openai": "https://h/openai/v1/models", "https://h/openai/v1": "https://h/openai/v1/models",
	} {
		if got, err := (Endpoint{BaseURL: base}).url("models"); err != nil || got != want {
			t.Errorf("%s gives %s, %v", base, got, err)
		}
	}
	for _, base := range []string{"http://h:x", "http://\x00"} {
		if _, err := (Endpoint{BaseURL: base, Client: http.DefaultClient}).Models(t.Context()); err == nil || strings.Contains(err.Error(), base) {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	var text string
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	defer s.Close()
	e := Endpoint{BaseURL: s.URL, Client: s.Client()}
	list := func(n int) string {
		return `{"data":[` + strings.TrimSuffix(strings.Repeat(`{"id":"m"},`, n), ",") + `]}`
	}
	for _, c := range []struct {
		text   string
		status int
		want   int // models, or -1 for an error
	}{
		{list(2), 200, 2}, {list(0), 200, 0}, {list(MaxModels), 200, MaxModels}, {list(MaxModels + 1), 200, MaxModels},
		{`{}`, 200, -1}, {`[]`, 200, -1}, {`html`, 200, -1}, {"", 200, -1}, {list(1), 500, -1}, {list(1), 401, -1},
		{`{"pad":"` + strings.Repeat("x", maxModelList) + `","data":[]}`, 200, -1},
	} {
		text, status = c.text, c.status
		models, err := e.Models(t.Context())
		if c.want < 0 && !errors.Is(err, fault.ProviderFailed) || c.want >= 0 && (err != nil || len(models) != c.want) {
			t.Errorf("%d %.40s: %d models, %v", c.status, c.text, len(models), err)
		}
	}
	text, status = list(0), 200
	if _, err := e.model(t.Context(), ""); !errors.Is(err, fault.NoModelProvider) {
		t.Errorf("an empty list: %v", err)
	}
}

// TestProbe: in order, ours left out, the first that lists models wins.
func TestProbe(t *testing.T) {
	t.Parallel()
	var asked []string
	answering := map[string]bool{"127.0.0.1:1234": true, "127.0.0.1:8000": true}
	client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Host)
		if !answering[req.URL.Host] {
			return nil, errors.New("refused")
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"data":[{"id":"m"}]}`)), Request: req}, nil
	})}
	e, models, err := Probe(t.Context(), client, 9)
	if err != nil || e.BaseURL != "http://127.0.0.1:1234" || len(models) != 1 || strings.Join(asked, " ") != "127.0.0.1:11434 127.0.0.1:1234" {
		t.Errorf("%+v, asked %v, %v", e, asked, err)
	}
	asked = nil
	if e, _, err = Probe(t.Context(), client, 1234); err != nil || e.BaseURL != "http://127.0.0.1:8000" || strings.Contains(strings.Join(asked, " "), ":1234") {
		t.Errorf("our own port: %+v, asked %v, %v", e, asked, err)
	}
	clear(answering)
	if _, _, err = Probe(t.Context(), client, 9); !errors.Is(err, fault.NoModelProvider) {
		t.Errorf("none: %v", err)
	}
}

func TestPassThrough(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	answer, err := r.Complete(t.Context(), Caller{}, ask(t, "good", ""), true)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := answer.Events(func(event []byte, _ bool) error { _, err := out.Write(event); return err }); err != nil || out.String() != answers["good"] {
		t.Errorf("%v\n%s", err, &out)
	}
	answer.Close()
	if got := string(p.last(t).Body["messages"]); strings.Contains(got, "Be brief") {
		t.Errorf("an agent's prompt was added: %s", got)
	}
	for _, model := range []string{"status-500", "missing"} {
		_, err := r.Complete(t.Context(), Caller{}, ask(t, model, ""), false)
		answer, streamed := r.Complete(t.Context(), Caller{}, ask(t, model, ""), true)
		if streamed == nil {
			streamed = answer.Events(func(event []byte, _ bool) error { t.Errorf("%s: %s", model, event); return nil })
			answer.Close()
		}
		for _, err := range []error{err, streamed} {
			if !errors.Is(err, fault.ProviderFailed) || strings.Contains(fault.Of(err).Public(), providerKey) {
				t.Errorf("%s: %v", model, err)
			}
		}
	}
	answer, err = r.Complete(t.Context(), Caller{}, ask(t, "hang-up", ""), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Events(func([]byte, bool) error { return nil }); !errors.Is(err, fault.ProviderFailed) {
		t.Errorf("a stream that broke off: %v", err)
	}
	answer.Close()
	const usage = `"usage":{"completion_tokens":2,"prompt_tokens":2,"total_tokens":4}`
	answer, err = r.Complete(t.Context(), Caller{}, ask(t, Echo, ""), false)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(answer.Body())
	answer.Close()
	if err != nil || !strings.Contains(string(raw), `"message":{"content":"Hi there","role":"assistant"}`) || !strings.Contains(string(raw), usage) {
		t.Errorf("echo: %s, %v", raw, err)
	}
	for more, want := range map[string]string{"": ours + done, `,"stream_options":{"include_usage":true}`: ours + "> []," + usage + "}\n\n" + done} {
		if answer, err = r.Complete(t.Context(), Caller{}, ask(t, Echo, more), true); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err := answer.Events(func(event []byte, _ bool) error { _, err := out.Write(event); return err })
		answer.Close()
		if got := stripped(t, out.String(), Echo); err != nil || !strings.HasPrefix(got, role) || !strings.HasSuffix(got, want) {
			t.Errorf("echo: %s, %v", got, err)
		}
	}
	if r.InFlight() != 0 {
		t.Errorf("%d runs are left", r.InFlight())
	}
}
