package runner

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// stripped takes the parts of a stream that differ from run to run.
func stripped(t *testing.T, out, model string) string {
	t.Helper()
	i := strings.Index(out, `"id":"`)
	if i < 0 || len(out) < i+39 {
		t.Fatalf("no completion in %s", out)
	}
	id := out[i+6 : i+6+len("chatcmpl-")+24]
	return strings.ReplaceAll(out, `data: {"id":"`+id+`","object":"chat.completion.chunk","created":1800000000,"model":"`+model+`","choices":`, "> ")
}

const (
	role    = `> [{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0}]}` + "\n\n"
	stopped = `> [{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	ours    = `> [{"delta":{},"finish_reason":"stop","index":0}]}` + "\n\n"
	done    = "data: [DONE]\n\n"
)

func content(text string) string {
	return `> [{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

func TestStreams(t *testing.T) {
	t.Parallel()
	r, _ := withProvider(t, nil)
	for model, want := range map[string]string{
		"good":      role + content("Hello") + content(" world") + stopped + done,
		"no-finish": role + content("Hello") + ours + done,
		"crlf":      role + content("Hello") + ours + done,
		"split":     role + "> [{\"index\":0,\n\"delta\":{\"content\":\"Hello\"}}]}\n\n" + ours + done,
		"reasoning": role + `> [{"index":0,"delta":{"reasoning_content":"hm"}}]}` + "\n\n" + content("Hello") + stopped + done,
		"tools":     role + `> [{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}]},"finish_reason":null}]}` + "\n\n" + `> [{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\n" + done,
		"usage":     role + content("Hello") + stopped + done,
	} {
		if got := stripped(t, run(t, r, Caller{}, ask(t, model, "")), model); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", model, got, want)
		}
	}
	got := stripped(t, run(t, r, Caller{}, ask(t, "usage", `,"stream_options":{"include_usage":true}`)), "usage")
	if want := role + content("Hello") + stopped + `> [],"usage":{"total_tokens":7}}` + "\n\n" + done; got != want {
		t.Errorf("usage asked for:\n%s", got)
	}
	if r.InFlight() != 0 {
		t.Errorf("%d runs are left", r.InFlight())
	}
}

// TestProviderFailures: each becomes one event and [DONE], and says nothing of
// what the provider said.
func TestProviderFailures(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r, p := withProvider(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	failed := string(fault.Event(fault.ProviderFailed)) + done
	for _, model := range []string{"hang-up", "half-line", "garbage", "wrong", "error", "empty", "unlimited", "status-400", "status-401", "status-429", "status-500", "status-204", "missing"} {
		out := run(t, r, Caller{}, ask(t, model, ""))
		if !strings.HasSuffix(out, failed) || strings.Contains(out, providerKey) {
			t.Errorf("%s:\n%s", model, out)
		}
	}
	p.Close()
	if out := run(t, r, Caller{}, ask(t, "good", "")); !strings.HasSuffix(out, failed) {
		t.Errorf("a provider that is down:\n%s", out)
	}
	if strings.Contains(log.String(), providerKey) || !strings.Contains(log.String(), "hung up") {
		t.Errorf("the log says:\n%s", &log)
	}
}

func TestNoProvider(t *testing.T) {
	t.Parallel()
	r := newRunner(t, nil)
	if out := run(t, r, Caller{}, ask(t, "", "")); out != string(fault.Event(fault.NoModelProvider))+done {
		t.Errorf("got %s", out)
	}
	if _, err := r.Complete(t.Context(), Caller{}, ask(t, "", ""), true); !errors.Is(err, fault.NoModelProvider) {
		t.Errorf("pass-through: %v", err)
	}
	broken := newRunner(t, func(c *Config) {
		c.Endpoint = func(context.Context) (Endpoint, error) { return Endpoint{}, fault.KeystoreLocked }
	})
	if out := run(t, broken, Caller{}, ask(t, "", "")); strings.Contains(out, "keystore") || !strings.HasSuffix(out, done) {
		t.Errorf("a locked keystore shows: %s", out)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	r := newRunner(t, nil)
	got := stripped(t, run(t, r, Caller{}, ask(t, Echo, "")), Echo)
	if want := role + `> [{"delta":{"content":"Hi "},"finish_reason":null,"index":0}]}` + "\n\n" + `> [{"delta":{"content":"there"},"finish_reason":null,"index":0}]}` + "\n\n" + ours + done; got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestUpstream: what the provider is sent.
func TestUpstream(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	run(t, r, Caller{}, ask(t, "", `,"temperature":0.5,"session_id":"s","unknown":{"a":[1]}`))
	c := p.last(t)
	for field, want := range map[string]string{
		"model": `"good"`, "stream": "true", "temperature": "0.5", "unknown": `{"a":[1]}`,
		"messages": `[{"content":"Be brief.","role":"system"},{"content":"Hi there","role":"user"}]`,
	} {
		if string(c.Body[field]) != want {
			t.Errorf("%s is %s, want %s", field, c.Body[field], want)
		}
	}
	if _, leaked := c.Body["session_id"]; leaked || c.Path != "/v1/chat/completions" || c.Authorization != "Bearer "+providerKey {
		t.Errorf("sent %+v", c)
	}
}

// TestConversations: a session's turns come back, and only to who had them.
func TestConversations(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	session := `,"session_id":"s"`
	messages := func(who Caller, more string) string {
		run(t, r, who, ask(t, "good", more))
		return string(p.last(t).Body["messages"])
	}
	const system, user = `{"content":"Be brief.","role":"system"}`, `{"content":"Hi there","role":"user"}`
	turns := `[` + system + `,` + user + `,{"content":"Hello world","role":"assistant"},` + user + `]`
	fresh := `[` + system + `,` + user + `]`
	alice, bob := peer(1, "a"), peer(1, "b")
	for i, c := range []struct {
		who  Caller
		more string
		want string
	}{
		{alice, session, fresh}, {alice, session, turns}, {bob, session, fresh}, {peer(2, "a"), session, fresh},
		{Caller{}, session, fresh}, {alice, "", fresh}, {alice, `,"session_id":"t"`, fresh},
		{Caller{&accesskey.Access{MasterScoped: true, Nonce: "m"}}, session, turns}, // the owner's own
	} {
		if got := messages(c.who, c.more); got != c.want {
			t.Errorf("%d: sent %s, want %s", i, got, c.want)
		}
	}
	long, err := ParseRequest([]byte(`{"model":"good","session_id":"s","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},` + user + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	run(t, r, alice, long)
	if got := string(p.last(t).Body["messages"]); strings.Contains(got, "Hello world") {
		t.Errorf("a caller with a history of its own got ours too: %s", got)
	}
}

// TestFailedRunsLeaveNoTurns.
func TestFailedRunsLeaveNoTurns(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	run(t, r, Caller{}, ask(t, "hang-up", `,"session_id":"s"`))
	run(t, r, Caller{}, ask(t, "good", `,"session_id":"s"`))
	if got := string(p.last(t).Body["messages"]); strings.Count(got, "Hi there") != 1 {
		t.Errorf("sent %s", got)
	}
}

// TestCallerGone: when the caller leaves, the provider's request ends too.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	for name, leave := range map[string]func(cancel context.CancelFunc) error{
		"cancelled":    func(cancel context.CancelFunc) error { cancel(); return nil },
		"write failed": func(context.CancelFunc) error { return errGone },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		admitted, err := r.Admit(ctx, Caller{})
		if err != nil {
			t.Fatal(err)
		}
		err = admitted.Stream(someone, ask(t, "hold", ""), func(event []byte, _ bool) error {
			if strings.Contains(string(event), "Hello") {
				return leave(cancel)
			}
			return ctx.Err()
		})
		cancel()
		if err == nil && name == "write failed" {
			t.Errorf("%s: the failed write was lost", name)
		}
		<-p.gone
	}
	if r.InFlight() != 0 {
		t.Errorf("%d runs are left", r.InFlight())
	}
}

func TestRunCap(t *testing.T) {
	t.Parallel()
	r := newRunner(t, nil)
	var held []*Run
	for range MaxRuns {
		admitted, err := r.Admit(t.Context(), Caller{})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, admitted)
	}
	_, err := r.Admit(t.Context(), Caller{})
	if e := fault.Of(err); e.Code != fault.ServerOverloaded || e.RetryAfter != time.Second {
		t.Errorf("one more: %v", err)
	}
	for _, h := range held {
		if err := h.Stream(someone, ask(t, Echo, ""), func([]byte, bool) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	run(t, r, Caller{}, ask(t, Echo, ""))
	if r.InFlight() != 0 {
		t.Errorf("%d runs are left", r.InFlight())
	}
}

// TestRevocationEndsStreams with a key that is really minted and revoked.
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	keys, err := accesskey.Open(t.Context(), accesskey.Config{Vault: keystore.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	keys.OnRevoked(r.EndAccess)
	master, err := identity.NewMasterKey(secret.New(append(make([]byte, 31), 5)))
	if err != nil {
		t.Fatal(err)
	}
	agent, err := master.Agent(identity.Path{})
	if err != nil {
		t.Fatal(err)
	}
	keys.SetAudiences(master.Address(), []address.Address{agent.Address()})
	mint := func() (accesskey.Minted, Caller) {
		m, err := keys.Mint(t.Context(), agent, accesskey.MintRequest{Label: "x", Expiration: accesskey.Days90})
		if err != nil {
			t.Fatal(err)
		}
		a, err := keys.Validate(string(m.Token.Expose()))
		if err != nil {
			t.Fatal(err)
		}
		return m, Caller{&a}
	}
	ended, alice := mint()
	_, bob := mint()
	type result struct{ out string }
	results := map[string]chan result{}
	started := make(chan struct{}, 3)
	for name, who := range map[string]Caller{"alice": alice, "bob": bob, "owner": {}} {
		admitted, err := r.Admit(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		results[name] = make(chan result, 1)
		go func() {
			var out strings.Builder
			_ = admitted.Stream(someone, ask(t, "hold", ""), func(event []byte, _ bool) error {
				out.Write(event)
				if strings.Contains(string(event), "Hello") {
					started <- struct{}{}
				}
				return nil
			})
			results[name] <- result{out.String()}
		}()
	}
	for range 3 {
		<-started
	}
	if err := keys.Revoke(t.Context(), ended.ID); err != nil {
		t.Fatal(err)
	}
	if got := (<-results["alice"]).out; !strings.HasSuffix(got, `"code":"access_revoked","message":"Access key has been revoked","type":"authentication_error"}}`+"\n\n"+done) {
		t.Errorf("the revoked key's stream ends with %s", got)
	}
	<-p.gone
	if r.InFlight() != 2 {
		t.Errorf("%d runs go on, want 2", r.InFlight())
	}
	r.Close()
	for _, name := range []string{"bob", "owner"} {
		if got := (<-results[name]).out; strings.Contains(got, "access_revoked") {
			t.Errorf("%s was told of a revocation: %s", name, got)
		}
	}
	if _, err := r.Admit(t.Context(), Caller{}); !errors.Is(err, fault.ServerOverloaded) {
		t.Errorf("a closed runner admits: %v", err)
	}
}
