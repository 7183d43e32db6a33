package pairing

import (
	"bytes"
	"context"
	stdhpke "crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// TestMain lowers how often rapid tries a law: each try signs and seals. The
// flag -rapid.checks sets another number.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const agentID = "5B7C1D2E-0000-4000-8000-0000000000AA"

func alice(t testing.TB) identity.MasterKey {
	t.Helper()
	raw, err := hex.DecodeString("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMasterKey(secret.Take(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type world struct {
	*Host
	keys  *accesskey.Keys
	queue *Queue
	agent identity.AgentKey
	own   identity.PairingKey
	recip recipient
	pub   encPub
	now   time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	m := alice(t)
	w := &world{now: time.Unix(1_800_000_000, 0)}
	var err error
	if w.agent, err = m.Agent(identity.Path{}); err != nil {
		t.Fatal(err)
	}
	if w.own, err = m.Pairing(); err != nil {
		t.Fatal(err)
	}
	if w.recip, w.pub, err = newRecipient(nil); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return w.now }
	if w.keys, err = accesskey.Open(t.Context(), accesskey.Config{Vault: keystore.NewMemory(), TemporaryPath: filepath.Join(t.TempDir(), "t.json"), Now: now}); err != nil {
		t.Fatal(err)
	}
	w.keys.SetAudiences(m.Address(), []address.Address{w.agent.Address()})
	w.queue = NewQueue(nil, nil)
	w.Host = NewHost(HostConfig{
		Agent: func(id string) (Agent, bool) {
			return Agent{ID: agentID, Name: "Assistant", Address: w.agent.Address(), Available: true}, strings.EqualFold(id, agentID)
		},
		Signer: func(context.Context, address.Address) (identity.Signer, error) { return w.agent, nil },
		Keys:   w.keys, Queue: w.queue, Now: now,
	})
	return w
}

// answer attaches an approver that gives every prompt the same answer.
func (w *world) answer(t testing.TB, v Validity) {
	t.Helper()
	detach, stop, done := w.queue.Attach(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			p, _, changed := w.queue.Current()
			if p != nil {
				_ = w.queue.Answer(p.ID, v) // a prompt that just ended is fine
			}
			select {
			case <-changed:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; detach() })
}

func (w *world) nonce(t testing.TB) string {
	t.Helper()
	raw, err := w.Challenge()
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Nonce string }
	if err := json.Unmarshal(raw, &c); err != nil || len(c.Nonce) != 64 {
		t.Fatalf("challenge %s", raw)
	}
	return c.Nonce
}

// body is a good request with some members replaced; nil removes one.
func (w *world) body(t testing.TB, nonce string, change map[string]any) []byte {
	t.Helper()
	raw, err := pairRequest(t.Context(), w.own, agentID, nonce, w.pub)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range change {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var lan = Source{Addr: netip.MustParseAddr("192.0.2.7")}

// TestRefusals is the table of PROTOCOL.md section 2.
func TestRefusals(t *testing.T) {
	t.Parallel()
	low := base64url.Encode(make([]byte, 32))
	order8 := base64url.Encode(append([]byte{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8}, 0x00))
	const (
		invalid   = `{"error":"Invalid pairing request"}`
		badKey    = `{"error":"Invalid encryption key"}`
		badSig    = `{"error":"Signature verification failed"}`
		noAgent   = `{"error":"Agent not found or not available for pairing"}`
		otherUUID = "5B7C1D2E-0000-4000-8000-0000000000AB"
	)
	cases := []struct {
		name   string
		change map[string]any
		status int
		body   string
		spent  bool
	}{
		{"no connector", map[string]any{"connectorAddress": nil}, 400, invalid, false},
		{"connector is a number", map[string]any{"connectorAddress": 7}, 400, invalid, false},
		{"connector is no address", map[string]any{"connectorAddress": "0x12"}, 400, invalid, false},
		{"zero connector", map[string]any{"connectorAddress": "0x0000000000000000000000000000000000000000"}, 400, invalid, false},
		{"no agent", map[string]any{"agentId": nil}, 400, invalid, false},
		{"agent is no UUID", map[string]any{"agentId": "x"}, 400, invalid, false},
		{"no nonce", map[string]any{"nonce": nil}, 400, invalid, false},
		{"no signature", map[string]any{"signature": nil}, 400, invalid, false},
		{"no encPub", map[string]any{"encPub": nil}, 400, badKey, false},
		{"empty encPub", map[string]any{"encPub": ""}, 400, badKey, false},
		{"short encPub", map[string]any{"encPub": low[:42]}, 400, badKey, false},
		{"zero encPub", map[string]any{"encPub": low}, 400, badKey, false},
		{"encPub of order 8", map[string]any{"encPub": order8}, 400, badKey, false},
		{"encPub with a line feed", map[string]any{"encPub": w64 + "\n"}, 400, badKey, false},
		{"short signature", map[string]any{"signature": "0x00"}, 401, badSig, false},
		{"other connector", map[string]any{"connectorAddress": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"}, 401, badSig, false},
		{"other key", map[string]any{"encPub": w64}, 401, badSig, false},
		{"other agent", map[string]any{"agentId": otherUUID}, 404, noAgent, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.answer(t, NinetyDays)
			nonce := w.nonce(t)
			_, err := w.Pair(t.Context(), w.body(t, nonce, c.change), lan)
			if r := fault.ReplyTo(err); r.Status != c.status || string(r.Body) != c.body {
				t.Fatalf("got %d %s, want %d %s", r.Status, r.Body, c.status, c.body)
			}
			if _, again := w.Pair(t.Context(), w.body(t, nonce, nil), lan); (again == nil) == c.spent {
				t.Fatalf("nonce spent: want %v, then got %v", c.spent, again)
			}
		})
	}
	for _, raw := range []string{"", "[]", "{", `{"a":1,"a":2}`, strings.Repeat("[", 300)} {
		if _, err := newWorld(t).Pair(t.Context(), []byte(raw), lan); !errors.Is(err, fault.PairingRequest) {
			t.Errorf("%.20q: %v", raw, err)
		}
	}
}

// w64 is a good key that nobody signed.
const w64 = "_y7kVgHsG2cxDHeQQEWFrmlzMe7hwfjPJBlzHB__Pms"

func TestNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answer(t, NinetyDays)
	nonce := w.nonce(t)
	if _, err := w.Pair(t.Context(), w.body(t, nonce, nil), lan); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]string{"used": nonce, "unknown": strings.Repeat("0", 64)} {
		_, err := w.Pair(t.Context(), w.body(t, n, nil), lan)
		if r := fault.ReplyTo(err); r.Status != 401 || string(r.Body) != `{"error":"Pairing challenge expired or invalid"}` {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	late := w.nonce(t)
	w.now = w.now.Add(ChallengeTTL)
	if w.challenges.consume(late) {
		t.Error("a challenge lived to its expiry")
	}
	first := w.nonce(t)
	w.now = w.now.Add(time.Second)
	for range MaxChallenges - 1 {
		w.nonce(t)
	}
	if !w.challenges.consume(first) {
		t.Error("a challenge within the limit was evicted")
	}
	w.nonce(t)
	second := w.nonce(t)
	if len(w.challenges.expires) != MaxChallenges || !w.challenges.consume(second) {
		t.Error("the newest challenge was evicted, or the table grew")
	}
}

func TestApprovalOutcomes(t *testing.T) {
	t.Parallel()
	pair := func(t *testing.T, w *world, src Source) (Granted, error) {
		return w.Pair(t.Context(), w.body(t, w.nonce(t), nil), src)
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		_, err := pair(t, newWorld(t), lan)
		if r := fault.ReplyTo(err); r.Status != 403 || string(r.Body) != `{"error":"Pairing denied"}` || Penalized(err) {
			t.Fatalf("%d %s, penalty %v", r.Status, r.Body, Penalized(err))
		}
	})
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.answer(t, Deny)
		_, err := pair(t, w, lan)
		if r := fault.ReplyTo(err); r.Status != 403 || !Penalized(err) || len(w.keys.List()) != 0 {
			t.Fatalf("%d, penalty %v, keys %d", r.Status, Penalized(err), len(w.keys.List()))
		}
	})
	t.Run("through the relay", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.answer(t, Permanent)
		if _, err := pair(t, w, Source{Relay: true}); !errors.Is(err, fault.PairingDenied) {
			t.Fatal(err)
		}
	})
	for v, want := range map[Validity]accesskey.Expiration{SessionOnly: accesskey.Days90, NinetyDays: accesskey.Days90, Permanent: accesskey.Never} {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.answer(t, v)
			nonce := w.nonce(t)
			g, err := w.Pair(t.Context(), w.body(t, nonce, nil), lan)
			if err != nil {
				t.Fatal(err)
			}
			got, err := checkReply(g.Body, w.agent.Address(), nonce, w.recip)
			if err != nil || got.Permanent != (v == Permanent) {
				t.Fatal(got.Permanent, err)
			}
			m := w.keys.List()[0]
			if m.Expiration != want || m.Temporary != (v == SessionOnly) || m.Label != "Paired – "+w.own.Address().Short() {
				t.Fatalf("%+v", m)
			}
			if _, err := w.keys.Validate(string(got.Key.Expose())); err != nil {
				t.Fatal("the delivered key:", err)
			}
			g.Delivered(errors.New("connection reset"))
			if _, err := w.keys.Validate(string(got.Key.Expose())); !errors.Is(err, fault.AccessRevoked) {
				t.Fatal("a key that was not delivered works:", err)
			}
		})
	}
	t.Run("connector hung up", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.answer(t, NinetyDays)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Pair(ctx, w.body(t, w.nonce(t), nil), lan); err == nil {
			t.Fatal("granted to nobody")
		}
		for _, m := range w.keys.List() {
			if !m.Revoked {
				t.Fatal("a key is left")
			}
		}
	})
}

func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(nil, nil)
		defer q.Attach()()
		asked := time.Now()
		if _, err := q.Ask(t.Context(), Prompt{}); !errors.Is(err, fault.PairingDenied) || time.Since(asked) != ApprovalTimeout {
			t.Fatalf("silence: %v after %v", err, time.Since(asked))
		}
		var wg sync.WaitGroup
		var got Validity
		wg.Go(func() { got, _ = q.Ask(t.Context(), Prompt{AgentName: "A"}) })
		synctest.Wait()
		if _, err := q.Ask(t.Context(), Prompt{}); !errors.Is(err, fault.PairingBusy) {
			t.Fatalf("a second request: %v", err)
		}
		p, _, _ := q.Current()
		if err := q.Answer("other", Permanent); !errors.Is(err, ErrNoPrompt) {
			t.Fatal("an answer to another prompt counted")
		}
		if err := q.Answer(p.ID, SessionOnly); err != nil {
			t.Fatal(err)
		}
		if err := q.Answer(p.ID, Permanent); !errors.Is(err, ErrNoPrompt) {
			t.Fatal("a second answer counted")
		}
		wg.Wait()
		if got != SessionOnly {
			t.Fatal("got", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = q.Ask(ctx, Prompt{}) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if p, last, _ := q.Current(); p != nil || last.Reason != "withdrawn" {
			t.Fatalf("after hanging up: %v, %q", p, last.Reason)
		}
		wg.Wait()
	})
}

func TestVectors(t *testing.T) {
	t.Parallel()
	var v struct {
		Nonce, EncPub, Signature, ServerSignature string
		Connector                                 address.Address
		Sealed                                    struct{ Info, Plaintext, Enc, CT string }
	}
	raw, err := os.ReadFile("testdata/vectors/pairing.json")
	if err != nil || json.Unmarshal(raw, &v) != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if w.own.Address() != v.Connector {
		t.Error("pairing key has address", w.own.Address())
	}
	sig, err := w.own.Sign(t.Context(), signature.SignedPairing.Digest([]byte(v.Nonce+":"+v.EncPub)))
	if err != nil || sig.Hex() != v.Signature {
		t.Error("request signature", sig.Hex())
	}
	sig, err = w.agent.Sign(t.Context(), signature.PairingServer.Digest(serverText(w.agent.Address(), v.Nonce)))
	if err != nil || sig.String() != v.ServerSignature {
		t.Error("server signature", sig)
	}
	r := recipient{secret.New(bytes.Repeat([]byte{0x44}, 32))}
	plain, err := r.open(Sealed{v.Sealed.Enc, v.Sealed.CT}, []byte(v.Sealed.Info))
	if err != nil || string(plain.Expose()) != v.Sealed.Plaintext {
		t.Error("sealed key:", err)
	}
}

// TestOracle lets the standard library's HPKE open what we seal, and back.
func TestOracle(t *testing.T) {
	t.Parallel()
	kem, info := stdhpke.DHKEM(ecdhX25519()), []byte("osaurus-pair-key-v1:0xab:n")
	kdf, aead := stdhpke.HKDFSHA256(), stdhpke.ChaCha20Poly1305()
	r, pub, err := newRecipient(nil)
	if err != nil {
		t.Fatal(err)
	}
	std, err := kem.NewPrivateKey(r.private.Expose())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := seal(randReader{}, pub, info, secret.New([]byte("key")))
	if err != nil {
		t.Fatal(err)
	}
	enc, err1 := base64url.Decode(ours.Enc)
	ct, err2 := base64url.Decode(ours.CT)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if got, err := stdhpke.Open(std, kdf, aead, info, append(enc, ct...)); err != nil || string(got) != "key" {
		t.Fatalf("the oracle opens ours: %q, %v", got, err)
	}
	theirs, err := stdhpke.Seal(std.PublicKey(), kdf, aead, info, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	s := Sealed{base64url.Encode(theirs[:32]), base64url.Encode(theirs[32:])}
	if got, err := r.open(s, info); err != nil || string(got.Expose()) != "key" {
		t.Fatal("we open the oracle's:", err)
	}
	if _, err := r.open(s, []byte("other")); !errors.Is(err, errSealed) {
		t.Error("other info opened")
	}
	other, _, err := newRecipient(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.open(s, info); !errors.Is(err, errSealed) {
		t.Error("another key opened")
	}
}

// TestConnector plays hosts that lie.
func TestConnector(t *testing.T) {
	t.Parallel()
	other, err := alice(t).Agent(identity.Path{Index: 1})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		edit func(r map[string]any)
		want error
	}{
		"honest":             {func(map[string]any) {}, nil},
		"other address":      {func(r map[string]any) { r["agentAddress"] = other.Address().String() }, ErrWrongAgent},
		"other signature":    {func(r map[string]any) { r["serverSignature"] = "0x" + strings.Repeat("11", 65) }, ErrServerSignature},
		"no signature":       {func(r map[string]any) { delete(r, "serverSignature") }, ErrServerSignature},
		"key in clear":       {func(r map[string]any) { r["apiKey"] = "osk-v1.a.b" }, ErrNotSealed},
		"not sealed":         {func(r map[string]any) { delete(r, "sealedApiKey") }, ErrNotSealed},
		"sealed to another":  {func(r map[string]any) { r["sealedApiKey"] = Sealed{Enc: w64, CT: "AAAA"} }, errSealed},
		"nothing of a reply": {func(r map[string]any) { clear(r) }, ErrWrongAgent},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.answer(t, NinetyDays)
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					raw, _ := w.Challenge()
					_, _ = rw.Write(raw)
					return
				}
				var buf bytes.Buffer
				_, _ = buf.ReadFrom(r.Body)
				g, err := w.Pair(r.Context(), buf.Bytes(), lan)
				if err != nil {
					fault.Write(rw, err)
					return
				}
				var reply map[string]any
				_ = json.Unmarshal(g.Body, &reply)
				c.edit(reply)
				_ = json.NewEncoder(rw).Encode(reply)
			}))
			defer srv.Close()
			defer srv.Client().CloseIdleConnections()
			base, _ := url.Parse(srv.URL)
			got, err := Pair(t.Context(), srv.Client(), w.own, Target{BaseURL: base, AgentID: agentID, Address: w.agent.Address()}, nil)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				if _, err := w.keys.Validate(string(got.Key.Expose())); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestPeers(t *testing.T) {
	t.Parallel()
	path, vault := filepath.Join(t.TempDir(), "peers.json"), keystore.NewMemory()
	p := OpenPeers(atomicfile.Plain(path), vault, nil)
	base, _ := url.Parse("http://192.0.2.7:1337")
	a := alice(t).Address()
	add := func(name, key string) {
		t.Helper()
		if _, err := p.Add(t.Context(), Target{BaseURL: base, AgentID: agentID}, name, Paired{Address: a, Key: secret.New([]byte(key))}); err != nil {
			t.Fatal(err)
		}
	}
	add("Al\x1bice", "one")
	add("Alice", "two")
	p = OpenPeers(atomicfile.Plain(path), vault, nil)
	if list, err := p.List(); err != nil || len(list) != 1 {
		t.Fatal("after a restart:", list, err)
	}
	found, err := p.Find("alice")
	if err != nil || found.Address != a {
		t.Fatal(found, err)
	}
	if key, err := p.Key(t.Context(), a); err != nil || string(key.Expose()) != "two" {
		t.Fatal("the newer key is not the one kept", err)
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.Contains(raw, []byte("two")) {
		t.Fatal("the key stands in the file", err)
	}
	if err := p.Forget(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Key(t.Context(), a); !errors.Is(err, fault.KeyNotFound) {
		t.Fatal("the key outlived its peer")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = OpenPeers(atomicfile.Plain(path), vault, nil)
	_, addErr := p.Add(t.Context(), Target{BaseURL: base, AgentID: agentID}, "x", Paired{Address: a, Key: secret.New([]byte("k"))})
	_, listErr := p.List()
	_, findErr := p.Find("alice")
	for what, err := range map[string]error{"add": addErr, "list": listErr, "find": findErr, "forget": p.Forget(t.Context(), a), "rename": p.Rename(a, "y"), "room": p.Room(a)} {
		if !errors.Is(err, fault.StateCorrupt) {
			t.Errorf("%s on a damaged file: %v", what, err)
		}
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "{" {
		t.Errorf("the damaged file was written over: %q, %v", raw, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if list, err := p.List(); err != nil || len(list) != 0 {
		t.Errorf("once it was set aside: %v, %v", list, err)
	}
}

// TestUsedIsNotedByTheMinute: calls do not each write to the disk.
func TestUsedIsNotedByTheMinute(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	path := filepath.Join(t.TempDir(), "peers.json")
	p := OpenPeers(atomicfile.Plain(path), keystore.NewMemory(), func() time.Time { return now })
	base := &url.URL{Scheme: "http", Host: "192.0.2.7:1337"}
	a := alice(t).Address()
	if _, err := p.Add(t.Context(), Target{BaseURL: base, AgentID: agentID}, "x", Paired{Address: a, Key: secret.New([]byte("k"))}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		url   string
		saved bool
	}{
		{0, base.String(), true}, {time.Second, base.String(), false}, {(usedEvery - 2) * time.Second, base.String(), false}, {time.Second, base.String(), true},
		{0, "http://192.0.2.8:1337", true}, {-time.Hour, "http://192.0.2.8:1337", true},
	} {
		now = now.Add(c.after)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := p.Used(a, c.url); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); (err == nil) != c.saved {
			t.Errorf("%v later, %s: saved %v", c.after, c.url, err == nil)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"connectorAddress":"0xc046a65EFf14D59be142c9511258e567e4dE9A83","agentId":"` + agentID + `","nonce":"n","signature":"00","encPub":"` + w64 + `"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := parseRequest(body)
		if err != nil {
			if s := fault.Of(err).Code.Status(); s != 400 && s != 401 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if w.connector.IsZero() || len(w.agentID) != 36 || w.encPub == (encPub{}) {
			t.Fatalf("accepted %+v", w)
		}
	})
}
