package accesskey

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

const aliceHex = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"

type clock struct{ unix atomic.Int64 }

func (c *clock) Now() time.Time { return time.Unix(c.unix.Load(), 0) }

// world is a host's keys with its master and one agent.
type world struct {
	*Keys
	vault  *faultyVault
	clock  *clock
	master identity.MasterKey
	agent  identity.AgentKey
	path   string
}

// faultyVault fails, or pretends the process died, at a chosen write.
type faultyVault struct {
	keystore.Store
	mu     sync.Mutex
	writes int
	failAt int // 0: never
	after  bool
}

var errKilled = errors.New("killed")

func (v *faultyVault) Put(ctx context.Context, s, a string, b secret.Bytes) error {
	v.mu.Lock()
	v.writes++
	fail, after := v.writes == v.failAt, v.after
	v.mu.Unlock()
	if fail && !after {
		return errKilled
	}
	if err := v.Store.Put(ctx, s, a, b); err != nil || !fail {
		return err
	}
	return errKilled
}

func key(t testing.TB) identity.MasterKey {
	t.Helper()
	raw, err := hex.DecodeString(aliceHex)
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMasterKey(secret.Take(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{vault: &faultyVault{Store: keystore.NewMemory()}, clock: &clock{}, master: key(t), path: filepath.Join(t.TempDir(), "temporary-keys.json")}
	w.clock.unix.Store(1_800_000_001)
	var err error
	if w.agent, err = w.master.Agent(identity.Path{Index: 0}); err != nil {
		t.Fatal(err)
	}
	w.reopen(t)
	return w
}

func (w *world) reopen(t testing.TB) {
	t.Helper()
	k, err := Open(t.Context(), Config{Vault: w.vault, TemporaryPath: w.path, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	k.SetAudiences(w.master.Address(), []address.Address{w.agent.Address()})
	w.Keys = k
}

func (w *world) mint(t testing.TB, s identity.Signer, r MintRequest) (string, Metadata) {
	t.Helper()
	if r.Expiration == "" {
		r.Expiration = Days90
	}
	m, err := w.Mint(t.Context(), s, r)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Token.Expose()), m.Metadata
}

// forge signs any claims with any key.
func forge(t testing.TB, s identity.Signer, c Claims) string {
	t.Helper()
	text, err := sign(t.Context(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text.Expose())
}

func TestVectors(t *testing.T) {
	t.Parallel()
	var file struct {
		Now    int64
		Master address.Address
		Agents []address.Address
		Cases  []struct{ Name, Expect, Token string }
	}
	raw, err := os.ReadFile("testdata/vectors/token.json")
	if err != nil || json.Unmarshal(raw, &file) != nil {
		t.Fatal("vectors do not load", err)
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.clock.unix.Store(file.Now)
			w.SetAudiences(file.Master, file.Agents)
			got := "success"
			if _, err := w.Validate(c.Token); err != nil {
				got = fault.Of(err).Public()
			}
			if got != c.Expect {
				t.Fatalf("got %q, want %q", got, c.Expect)
			}
		})
	}
}

func TestMintMatchesTheKnownAnswer(t *testing.T) {
	t.Parallel()
	m, label, exp := key(t), "test", int64(4102444800)
	got := forge(t, m, Claims{Audience: m.Address(), Issuer: m.Address(), Counter: 1, IssuedAt: 1800000000, Expires: &exp, Label: &label, Nonce: "known0000000000000000000000answer"})
	raw, err := os.ReadFile("testdata/vectors/token.json")
	if err != nil || !strings.Contains(string(raw), `"token": "`+got+`"`) {
		t.Fatal("a token we sign differs from the known answer", err)
	}
}

func TestWhoMayIssue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, err := w.master.Agent(identity.Path{Index: 7})
	if err != nil {
		t.Fatal(err)
	}
	everywhere, err := w.master.Agent(identity.Path{Index: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := errors.Join(w.Trust(ctx, address.Address{}, everywhere.Address()), w.Trust(ctx, w.agent.Address(), other.Address())); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		issuer identity.Signer
		aud    address.Address
		want   error
	}{
		{"master for itself", w.master, w.master.Address(), nil},
		{"master for the agent", w.master, w.agent.Address(), nil},
		{"agent for itself", w.agent, w.agent.Address(), nil},
		{"agent for the master", w.agent, w.master.Address(), fault.IssuerNotListed},
		{"trusted everywhere for the master", everywhere, w.master.Address(), nil},
		{"trusted everywhere for the agent", everywhere, w.agent.Address(), nil},
		{"trusted for the agent", other, w.agent.Address(), nil},
		{"trusted for the agent, for the master", other, w.master.Address(), fault.IssuerNotListed},
		{"anybody for an address that is not ours", other, other.Address(), fault.AudienceMismatch},
	}
	for _, c := range cases {
		token := forge(t, c.issuer, Claims{Audience: c.aud, Issuer: c.issuer.Address(), Counter: 1, IssuedAt: 1, Nonce: c.name})
		a, err := w.Validate(token)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && a.MasterScoped != (c.aud == w.master.Address()) {
			t.Errorf("%s: master-scoped %v", c.name, a.MasterScoped)
		}
		lied := forge(t, c.issuer, Claims{Audience: c.aud, Issuer: w.master.Address(), Counter: 1, IssuedAt: 1, Nonce: c.name})
		if _, err := w.Validate(lied); err == nil && c.issuer.Address() != w.master.Address() {
			t.Errorf("%s: a key that names another issuer was accepted", c.name)
		}
	}
	if err := w.Distrust(ctx, address.Address{}, everywhere.Address()); err != nil {
		t.Fatal(err)
	}
	token := forge(t, everywhere, Claims{Audience: w.master.Address(), Issuer: everywhere.Address(), Counter: 1, IssuedAt: 1, Nonce: "trusted everywhere for the master"})
	if _, err := w.Validate(token); !errors.Is(err, fault.IssuerNotListed) {
		t.Errorf("a cached key of a distrusted issuer: %v", err)
	}
}

// TestChangesRuleTheNextRequest covers every way a key ends.
func TestChangesRuleTheNextRequest(t *testing.T) {
	t.Parallel()
	ends := map[string]struct {
		end  func(w *world, m Metadata) error
		want error
	}{
		"revoked": {func(w *world, m Metadata) error { return w.Revoke(context.Background(), m.ID) }, fault.AccessRevoked},
		"deleted": {func(w *world, m Metadata) error { return w.Delete(context.Background(), m.ID) }, fault.AccessRevoked},
		"audience revoked": {func(w *world, m Metadata) error {
			_, err := w.RevokeAudience(context.Background(), m.Audience)
			return err
		}, fault.AccessRevoked},
		"issuer revoked":  {func(w *world, m Metadata) error { return w.RevokeIssuer(context.Background(), m.Issuer) }, fault.AccessRevoked},
		"refused by time": {func(w *world, _ Metadata) error { return w.RefuseBefore(context.Background(), w.clock.Now().Add(1e9)) }, fault.AccessRevoked},
		"forgotten":       {func(w *world, _ Metadata) error { return w.Forget(context.Background()) }, fault.AccessRevoked},
		"agent gone":      {func(w *world, _ Metadata) error { w.SetAudiences(w.master.Address(), nil); return nil }, fault.AudienceMismatch},
		"expired":         {func(w *world, _ Metadata) error { w.clock.unix.Add(90 * day); return nil }, fault.AccessExpired},
	}
	for name, c := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			token, m := w.mint(t, w.agent, MintRequest{Label: "x"})
			for range 2 { // the second hit comes from the cache
				if _, err := w.Validate(token); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.end(w, m); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Validate(token); !errors.Is(err, c.want) {
				t.Fatalf("next request: %v, want %v", err, c.want)
			}
			gone := name == "agent gone" || name == "expired"
			w.reopen(t)
			if _, err := w.Validate(token); err == nil && !gone {
				t.Fatal("accepted again after a restart")
			}
		})
	}
}

// TestRefuseBeforeWithinASecond: keys know whole seconds, so a moment within
// one ends those minted in it, and one minted right after is good.
func TestRefuseBeforeWithinASecond(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		part time.Duration
		ends bool
	}{"on the second": {0, false}, "just after it": {1, true}, "just before the next": {time.Second - 1, true}} {
		w := newWorld(t)
		before, _ := w.mint(t, w.agent, MintRequest{Label: "before", Expiration: Days30})
		if err := w.RefuseBefore(t.Context(), w.clock.Now().Add(c.part)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Validate(before); errors.Is(err, fault.AccessRevoked) != c.ends {
			t.Errorf("%s: a key of the same second: %v", name, err)
		}
		after, m := w.mint(t, w.agent, MintRequest{Label: "after", Expiration: Days30})
		if _, err := w.Validate(after); err != nil || m.ExpiresAt != m.CreatedAt+30*day {
			t.Errorf("%s: a key minted after it: %+v, %v", name, m, err)
		}
		w.reopen(t)
		if _, err := w.Validate(after); err != nil {
			t.Errorf("%s: after a restart: %v", name, err)
		}
	}
}

// TestRevokeIssuerWithoutACounter: a keystore that lost the counter still ends
// the keys on record, and no later one.
func TestRevokeIssuerWithoutACounter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mint(t, w.agent, MintRequest{Label: "first"})
	token, m := w.mint(t, w.agent, MintRequest{Label: "second"})
	if err := w.vault.Delete(t.Context(), keyService, counterAccount); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeIssuer(t.Context(), m.Issuer); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Validate(token); !errors.Is(err, fault.AccessRevoked) {
		t.Errorf("it is still good: %v", err)
	}
	later, _ := w.mint(t, w.agent, MintRequest{Label: "later"})
	if _, err := w.Validate(later); err != nil {
		t.Errorf("a later one: %v", err)
	}
}

func TestExpiryBoundary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, m := w.mint(t, w.agent, MintRequest{Expiration: Days30})
	w.clock.unix.Store(m.ExpiresAt - 1)
	if _, err := w.Validate(token); err != nil {
		t.Fatal(err)
	}
	w.clock.unix.Store(m.ExpiresAt)
	if _, err := w.Validate(token); !errors.Is(err, fault.AccessExpired) {
		t.Fatalf("at its expiry: %v", err)
	}
	if forever, m := w.mint(t, w.agent, MintRequest{Expiration: Never}); m.ExpiresAt != 0 {
		t.Fatal("never expires at", m.ExpiresAt)
	} else if _, err := w.Validate(forever); err != nil {
		t.Fatal(err)
	}
}

// TestCrashAnywhere stops minting and revoking at every write, before and
// after it reached the disk, and looks at what a restart finds.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for at := 1; at <= 6; at++ {
			w := newWorld(t)
			kept, m := w.mint(t, w.agent, MintRequest{Label: "kept"})
			w.vault.mu.Lock()
			w.vault.writes, w.vault.failAt, w.vault.after = 0, at, after
			w.vault.mu.Unlock()
			minted, mintErr := w.Mint(t.Context(), w.agent, MintRequest{Expiration: Days30, Temporary: at%2 == 0})
			revokeErr := w.Revoke(t.Context(), m.ID)
			w.vault.mu.Lock()
			w.vault.failAt = 0
			w.vault.mu.Unlock()
			w.reopen(t)
			if _, err := w.Validate(kept); revokeErr == nil && err == nil {
				t.Errorf("write %d: a revoked key is accepted after the crash", at)
			}
			next, meta := w.mint(t, w.agent, MintRequest{})
			if mintErr == nil && meta.Counter <= minted.Counter || meta.Counter <= m.Counter {
				t.Errorf("write %d: counter %d was handed out again", at, meta.Counter)
			}
			if _, err := w.Validate(next); err != nil {
				t.Errorf("write %d: a key minted after the crash: %v", at, err)
			}
			if mintErr == nil {
				if _, err := w.Validate(string(minted.Token.Expose())); at%2 == 0 && err == nil {
					t.Errorf("write %d: a session-only key survived the restart", at)
				}
			}
		}
	}
}

type brokenVault struct{ keystore.Store }

func (brokenVault) Get(context.Context, string, string) (secret.Bytes, error) {
	return secret.Bytes{}, fault.KeystoreLocked
}

func TestUnreadableStoresRefuseEveryKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.mint(t, w.agent, MintRequest{})
	k, err := Open(t.Context(), Config{Vault: brokenVault{w.vault}, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	k.SetAudiences(w.master.Address(), []address.Address{w.agent.Address()})
	if _, err := k.Validate(token); !errors.Is(err, fault.AccessRevoked) {
		t.Fatalf("with unreadable revocations: %v", err)
	}
	if k.Problem() == nil || !k.Configured() {
		t.Fatal("the problem is not reported, or the host looks as if it had no keys")
	}
	if _, err := k.Mint(t.Context(), w.agent, MintRequest{Expiration: Never}); err == nil {
		t.Fatal("minted over stores that cannot be read")
	}
}

func TestTemporaryKeys(t *testing.T) {
	t.Parallel()
	t.Run("end with the session", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		session, m := w.mint(t, w.agent, MintRequest{Temporary: true, Expiration: Never})
		lasting, _ := w.mint(t, w.agent, MintRequest{})
		if m.ExpiresAt != w.clock.unix.Load()+90*day {
			t.Fatal("a session-only key expires at", m.ExpiresAt)
		}
		if err := w.EndSession(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Validate(session); err == nil {
			t.Fatal("accepted after the session ended")
		}
		if _, err := w.Validate(lasting); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Mint(t.Context(), w.agent, MintRequest{Expiration: Days30, Temporary: true}); err == nil {
			t.Fatal("minted while stopping")
		}
	})
	t.Run("are swept after a crash", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		session, _ := w.mint(t, w.agent, MintRequest{Temporary: true})
		w.reopen(t)
		if _, err := w.Validate(session); err == nil || len(w.List()) != 0 {
			t.Fatal("a crashed session's key is still there")
		}
	})
	for name, content := range map[string]string{"garbage": "{", "no list": `{}`, "bad id": `{"ids":["00000000-0000-0000-0000-000000000001","x"]}`} {
		t.Run("corrupt tracking: "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, _ := w.mint(t, w.agent, MintRequest{Temporary: true})
			if err := os.WriteFile(w.path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			w.reopen(t)
			if _, err := w.Validate(session); err == nil {
				t.Fatal("a key on record is accepted")
			}
			if raw, err := os.ReadFile(w.path); err != nil || string(raw) != content {
				t.Fatal("the tracking file was changed")
			}
			if _, err := w.Mint(t.Context(), w.agent, MintRequest{Expiration: Days30, Temporary: true}); err == nil {
				t.Fatal("minted without tracking")
			}
			if _, err := w.Mint(t.Context(), w.agent, MintRequest{Expiration: Days30}); err != nil {
				t.Fatal("ordinary keys stopped working:", err)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, m := w.mint(t, w.agent, MintRequest{Label: "  a \t b\n"}); m.Label != "a b" {
		t.Errorf("label %q", m.Label)
	}
	if _, m := w.mint(t, w.agent, MintRequest{Label: strings.Repeat("é", MaxLabel)}); len([]rune(m.Label)) != MaxLabel {
		t.Error("a label at the limit was changed")
	}
	for _, bad := range []string{strings.Repeat("é", MaxLabel+1), "a\x00b", "\xff"} {
		if _, err := w.Mint(t.Context(), w.agent, MintRequest{Label: bad, Expiration: Never}); !errors.Is(err, fault.Usage) {
			t.Errorf("label %q: %v", bad, err)
		}
	}
}

func TestCacheHoldsOneEntryForEachKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.mint(t, w.agent, MintRequest{})
	upper := token[:len(token)-130] + strings.ToUpper(token[len(token)-130:])
	for range 3 {
		for _, form := range []string{token, upper} {
			if _, err := w.Validate(form); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	for i := range w.cache.slots {
		for j := range w.cache.slots[i] {
			if w.cache.slots[i][j].Load() != nil {
				n++
			}
		}
	}
	if n != 1 || len(w.cache.where) != 1 {
		t.Fatalf("%d slots and %d places for one key", n, len(w.cache.where))
	}
	if _, err := w.Validate("osk-v1.e30." + strings.Repeat("0", 2*signature.Size)); err == nil || len(w.cache.where) != 1 {
		t.Fatal("a refused key entered the cache")
	}
}

func TestCachedHitAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	token, _ := w.mint(t, w.agent, MintRequest{})
	if _, err := w.Validate(token); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = w.Validate(token) }); n != 0 {
		t.Fatalf("%v allocations in a hit", n)
	}
}

// TestNoAcceptAfterRevoke races validation against revocation.
func TestNoAcceptAfterRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				m, err := w.Mint(context.Background(), w.agent, MintRequest{Expiration: Days30})
				if err != nil {
					t.Error(err)
					return
				}
				token := string(m.Token.Expose())
				if _, err := w.Validate(token); err != nil {
					t.Error("before:", err)
				}
				if err := w.Revoke(context.Background(), m.ID); err != nil {
					t.Error(err)
				}
				if _, err := w.Validate(token); err == nil {
					t.Error("accepted after Revoke returned")
				}
			}
		})
	}
	wg.Wait()
}

// TestModel compares with a plain picture of which keys should work.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		type known struct {
			token string
			meta  Metadata
			dead  bool
		}
		var keys []*known
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch op := rapid.SampledFrom([]string{"mint", "mint", "revoke", "delete", "issuer", "restart"}).Draw(rt, "op"); op {
			case "mint":
				var s identity.Signer = w.agent
				if rapid.Bool().Draw(rt, "master") {
					s = w.master
				}
				token, m := w.mint(t, s, MintRequest{})
				keys = append(keys, &known{token: token, meta: m})
			case "restart":
				w.reopen(t)
			case "issuer":
				if err := w.RevokeIssuer(context.Background(), w.agent.Address()); err != nil {
					rt.Fatal(err)
				}
				for _, k := range keys {
					k.dead = k.dead || k.meta.Issuer == w.agent.Address()
				}
			default:
				if len(keys) == 0 {
					continue
				}
				k := rapid.SampledFrom(keys).Draw(rt, "key")
				listed := slices.ContainsFunc(w.List(), func(m Metadata) bool { return m.ID == k.meta.ID })
				end := w.Revoke
				if op == "delete" {
					end = w.Delete
				}
				if err := end(context.Background(), k.meta.ID); (err == nil) != listed {
					rt.Fatalf("%s of a key that is listed %v: %v", op, listed, err)
				}
				k.dead = true
			}
			for _, k := range keys {
				if _, err := w.Validate(k.token); (err == nil) == k.dead {
					rt.Fatalf("key %d: dead %v, got %v", k.meta.Counter, k.dead, err)
				}
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	raw, err := os.ReadFile("testdata/vectors/token.json")
	if err != nil {
		f.Fatal(err)
	}
	var file struct{ Cases []struct{ Token string } }
	if err := json.Unmarshal(raw, &file); err != nil {
		f.Fatal(err)
	}
	for _, c := range file.Cases {
		f.Add(c.Token)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parse(s)
		if err != nil {
			if fault.Of(err).Code.Status() != 401 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again, err := parse(string(format(tok.payload, tok.signature)))
		if err != nil || string(again.payload) != string(tok.payload) || again.signature != tok.signature {
			t.Fatal("parse and format do not round-trip")
		}
		payload, err := tok.claims.payload()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := parseClaims(payload); err != nil || c.Audience != tok.claims.Audience || c.Nonce != tok.claims.Nonce || c.Counter != tok.claims.Counter {
			t.Fatal("claims do not round-trip")
		}
	})
}
