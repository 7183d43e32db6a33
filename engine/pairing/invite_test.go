package pairing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

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

const domain = "relay.example"

// killer dies at the nth durable write, before or after it.
type killer struct {
	mu    sync.Mutex
	at, n int // at 0 never
	after bool
	dead  bool
}

var errKilled = errors.New("killed")

func (k *killer) write(f func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return errKilled
	}
	k.n++
	if k.at == 0 || k.n != k.at {
		return f()
	}
	k.dead = true
	if k.after {
		_ = f()
	}
	return errKilled
}

type mortalVault struct {
	*killer
	keystore.Store
}

func (v mortalVault) Put(ctx context.Context, service, account string, b secret.Bytes) error {
	return v.write(func() error { return v.Store.Put(ctx, service, account, b) })
}

type mortalDocument struct {
	*killer
	atomicfile.Plain
}

func (d mortalDocument) Write(b []byte) error {
	return d.write(func() error { return d.Plain.Write(b) })
}

// inviting is a host with one agent that invites.
type inviting struct {
	*Invites
	t        testing.TB
	dir      string
	kill     *killer
	vault    keystore.Store
	keys     *accesskey.Keys
	master   identity.MasterKey
	agent    InvitedAgent
	signer   identity.AgentKey
	now      atomic.Int64
	locked   atomic.Bool
	offline  atomic.Bool
	builtIn  atomic.Bool
	private  recipient
	encPub   string
	disabled atomic.Bool // the agent has no address any more
}

func newInviting(t testing.TB) *inviting {
	t.Helper()
	h := &inviting{t: t, dir: t.TempDir(), kill: &killer{}, vault: keystore.NewMemory(), master: alice(t)}
	h.now.Store(1_800_000_000)
	var err error
	if h.signer, err = h.master.Agent(identity.Path{}); err != nil {
		t.Fatal(err)
	}
	var pub encPub
	if h.private, pub, err = newRecipient(nil); err != nil {
		t.Fatal(err)
	}
	h.encPub = base64urlOf(pub)
	h.agent = InvitedAgent{ID: agentID, Name: "Assistant", Description: "Helps", Address: h.signer.Address()}
	h.open()
	return h
}

func (h *inviting) time() time.Time { return time.Unix(h.now.Load(), 0) }

// open starts the host anew over what is durable.
func (h *inviting) open() {
	h.t.Helper()
	var err error
	h.keys, err = accesskey.Open(h.t.Context(), accesskey.Config{Vault: mortalVault{h.kill, h.vault}, TemporaryPath: filepath.Join(h.dir, "t.json"), Now: h.time})
	if err != nil {
		h.t.Fatal(err)
	}
	h.keys.SetAudiences(h.master.Address(), []address.Address{h.signer.Address()})
	h.Invites = NewInvites(InvitesConfig{
		Agent: func(a address.Address) (InvitedAgent, bool) {
			agent := h.agent
			agent.BuiltIn = h.builtIn.Load()
			return agent, a == h.agent.Address && !h.disabled.Load()
		},
		Signer: func(context.Context, address.Address) (identity.Signer, error) {
			if h.locked.Load() {
				return nil, fault.HostIdentityUnavailable
			}
			return h.signer, nil
		},
		Keys:    h.keys,
		Ledger:  func(id string) atomicfile.Document { return mortalDocument{h.kill, atomicfile.Plain(h.ledger(id))} },
		Devices: mortalDocument{h.kill, atomicfile.Plain(h.devices())},
		Master:  func() (address.Address, bool) { return h.master.Address(), !h.locked.Load() },
		Place:   func(a address.Address) string { return "https://" + a.Lower() + "." + domain },
		URL: func(a address.Address) (string, error) {
			if h.offline.Load() {
				return "", errors.New("offline")
			}
			return "https://" + a.Lower() + "." + domain + "/", nil
		},
		Now: h.time,
	})
}

func (h *inviting) ledger(id string) string { return filepath.Join(h.dir, id+".json") }
func (h *inviting) devices() string         { return filepath.Join(h.dir, "owner-devices.json") }

func (h *inviting) issue() Invite {
	h.t.Helper()
	in, err := h.Issue(h.t.Context(), h.agent, time.Hour)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

// body is a redemption with some members replaced; nil removes one.
func (h *inviting) body(in Invite, change map[string]any) []byte {
	h.t.Helper()
	raw, err := json.Marshal(offerBody{in, h.encPub})
	if err != nil {
		h.t.Fatal(err)
	}
	var m map[string]any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		h.t.Fatal(err)
	}
	for k, v := range change {
		if v == absent {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	raw, err = json.Marshal(m)
	if err != nil {
		h.t.Fatal(err)
	}
	return raw
}

type absence struct{}

var absent any = absence{}

// resign signs an invite again after its fields were changed.
func (h *inviting) resign(in Invite, by identity.Signer) Invite {
	h.t.Helper()
	sig, err := by.Sign(h.t.Context(), signature.SignedInvite.Digest(inviteText(in.Addr, in.Nonce, in.Exp)))
	if err != nil {
		h.t.Fatal(err)
	}
	in.Sig = sig.Hex()
	return in
}

func (h *inviting) redeem(in Invite) (Granted, error) {
	return h.Redeem(h.t.Context(), h.body(in, nil), "203.0.113.9")
}

// token opens what a redemption brought.
func (h *inviting) token(g Granted, nonce string) string {
	h.t.Helper()
	var r InviteReply
	if err := json.Unmarshal(g.Body, &r); err != nil {
		h.t.Fatal(err)
	}
	key, err := h.private.open(r.SealedAPIKey, sealInfo(h.agent.Address, nonce))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(key.Expose())
}

func (h *inviting) works(token string) bool {
	_, err := h.keys.Validate(token)
	return err == nil
}

func (h *inviting) alive() (n int) {
	for _, m := range h.keys.List() {
		if !m.Revoked {
			n++
		}
	}
	return n
}

func (h *inviting) state(nonce string) string {
	h.t.Helper()
	list, err := h.List(agentID)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, in := range list {
		if in.Nonce == nonce {
			return in.State(h.time())
		}
	}
	return "gone"
}

func wire(err error) string {
	r := fault.ReplyTo(err)
	return fmt.Sprintf("%d %s", r.Status, r.Body)
}

const (
	badPayload = `400 {"error":"Invalid invite payload"}`
	badVersion = `400 {"error":"Unsupported invite version"}`
	badKey     = `400 {"error":"Invalid encryption key"}`
	badSig     = `401 {"error":"Signature verification failed"}`
	expired    = `410 {"error":"Invite has expired"}`
	noAgent    = `404 {"error":"Agent address not found on this server"}`
	unknown    = `401 {"error":"Invite is not registered on this server"}`
	redeemed   = `409 {"error":"Invite has already been redeemed"}`
	revoked    = `403 {"error":"Invite was revoked"}`
	noIdentity = `503 {"error":"Host identity is unavailable right now"}`
)

// TestInviteRefusals is the table of PROTOCOL.md section 5. No refusal spends
// the invite or leaves a key.
func TestInviteRefusals(t *testing.T) {
	t.Parallel()
	other := base64url.Encode(make([]byte, 32))
	strange := "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	cases := map[string]struct {
		change map[string]any
		want   string
	}{
		"no v":               {map[string]any{"v": absent}, badPayload},
		"v is text":          {map[string]any{"v": "1"}, badPayload},
		"v is a fraction":    {map[string]any{"v": 1.5}, badPayload},
		"v is null":          {map[string]any{"v": nil}, badPayload},
		"v in capitals":      {map[string]any{"v": absent, "V": 1}, badPayload},
		"no addr":            {map[string]any{"addr": absent}, badPayload},
		"addr is no address": {map[string]any{"addr": "0x12"}, badPayload},
		"zero addr":          {map[string]any{"addr": "0x" + strings.Repeat("0", 40)}, badPayload},
		"no name":            {map[string]any{"name": absent}, badPayload},
		"no url":             {map[string]any{"url": absent}, badPayload},
		"no nonce":           {map[string]any{"nonce": absent}, badPayload},
		"short nonce":        {map[string]any{"nonce": "AAAA"}, badPayload},
		"no exp":             {map[string]any{"exp": absent}, badPayload},
		"exp is text":        {map[string]any{"exp": "1"}, badPayload},
		"exp beyond int64":   {map[string]any{"exp": json.Number("9223372036854775808")}, badPayload},
		"no sig":             {map[string]any{"sig": absent}, badPayload},
		"desc is a number":   {map[string]any{"desc": 1}, badPayload},
		"encPub is a number": {map[string]any{"encPub": 1}, badPayload},
		"v 2":                {map[string]any{"v": 2}, badVersion},
		"v 0":                {map[string]any{"v": 0}, badVersion},
		"v 2 before encPub":  {map[string]any{"v": 2, "encPub": absent}, badVersion},
		"no encPub":          {map[string]any{"encPub": absent}, badKey},
		"null encPub":        {map[string]any{"encPub": nil}, badKey},
		"empty encPub":       {map[string]any{"encPub": ""}, badKey},
		"31 bytes of encPub": {map[string]any{"encPub": base64url.Encode(make([]byte, 31))}, badKey},
		"zero encPub":        {map[string]any{"encPub": other}, badKey},
		"encPub before sig":  {map[string]any{"encPub": "", "sig": "00"}, badKey},
		"short sig":          {map[string]any{"sig": "00"}, badSig},
		"sig of zeros":       {map[string]any{"sig": strings.Repeat("0", 130)}, badSig},
		"other nonce":        {map[string]any{"nonce": other}, badSig},
		"later exp":          {map[string]any{"exp": 1_900_000_000}, badSig},
		"earlier exp":        {map[string]any{"exp": 1}, badSig},
		"other addr":         {map[string]any{"addr": strange}, badSig},
		"addr in lower case": {map[string]any{"addr": strings.ToLower(newInviting(t).agent.Address.String())}, badSig},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInviting(t)
			in := h.issue()
			_, err := h.Redeem(t.Context(), h.body(in, c.change), "")
			if got := wire(err); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if h.state(in.Nonce) != InviteActive || len(h.keys.List()) != 0 {
				t.Error("a refusal left something behind")
			}
			if _, err := h.redeem(in); err != nil {
				t.Error("afterwards:", err)
			}
		})
	}
	for _, raw := range []string{"", "null", "[]", "1", "{", `{"v":1,"v":1}`, strings.Repeat("[", 300), `{"team_redeem":{"v":1}}`, `{"team_redeem":null}`, `{"owner_redeem":null}`, `{"owner_redeem":[]}`} {
		if _, err := newInviting(t).Redeem(t.Context(), []byte(raw), ""); wire(err) != badPayload {
			t.Errorf("%.20q: %s", raw, wire(err))
		}
	}
}

// TestInviteStates: the refusals that depend on the ledger, the clock and the
// agents of the host.
func TestInviteStates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(h *inviting, in Invite) Invite
		want  string
		state string
	}{
		"unknown": {func(h *inviting, in Invite) Invite {
			in.Nonce = base64url.Encode([]byte(strings.Repeat("x", 32)))
			return h.resign(in, h.signer)
		}, unknown, "gone"},
		"nonce with another expiry": {func(h *inviting, in Invite) Invite { in.Exp++; return h.resign(in, h.signer) }, unknown, InviteActive},
		"signed by the master":      {func(h *inviting, in Invite) Invite { return h.resign(in, h.master) }, badSig, InviteActive},
		"used":                      {func(h *inviting, in Invite) Invite { _, _ = h.redeem(in); return in }, redeemed, InviteUsed},
		"revoked":                   {func(h *inviting, in Invite) Invite { _ = h.Revoke(h.t.Context(), agentID, in.Nonce); return in }, revoked, InviteRevoked},
		"expired":                   {func(h *inviting, in Invite) Invite { h.now.Store(in.Exp); return in }, expired, InviteExpired},
		"used, then expired":        {func(h *inviting, in Invite) Invite { _, _ = h.redeem(in); h.now.Store(in.Exp); return in }, expired, InviteUsed},
		"locked":                    {func(h *inviting, in Invite) Invite { h.locked.Store(true); return in }, noIdentity, InviteActive},
		"address gone":              {func(h *inviting, in Invite) Invite { h.disabled.Store(true); return in }, noAgent, InviteActive},
		"built in":                  {func(h *inviting, in Invite) Invite { h.builtIn.Store(true); return in }, noAgent, InviteActive},
		"retired": {func(h *inviting, in Invite) Invite {
			if err := h.Retire(h.t.Context(), agentID, h.agent.Address); err != nil {
				h.t.Error(err)
			}
			return in
		}, revoked, InviteRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInviting(t)
			in := c.do(h, h.issue())
			_, err := h.redeem(in)
			if got := wire(err); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := h.state(in.Nonce); got != c.state {
				t.Errorf("left %s, want %s", got, c.state)
			}
			if want := map[bool]int{true: 1}[c.state == InviteUsed]; h.alive() != want {
				t.Errorf("%d keys, want %d", h.alive(), want)
			}
		})
	}
	h := newInviting(t)
	in := h.issue()
	h.now.Store(in.Exp - 1)
	if _, err := h.redeem(in); err != nil {
		t.Error("in its last second:", err)
	}
}

func TestRedeemed(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	h.agent.Name = strings.Repeat("é", 80)
	in := h.issue()
	if in.URL != "https://"+h.agent.Address.Lower()+"."+domain || in.Addr != h.agent.Address.String() || in.Exp != h.now.Load()+3600 {
		t.Errorf("%+v", in)
	}
	g, err := h.Redeem(t.Context(), h.body(in, map[string]any{"sig": "0x" + in.Sig, "more": 1, "encPub": h.encPub + "="}), "203.0.113.9")
	if err != nil {
		t.Fatal(err)
	}
	var reply map[string]any
	if err := json.Unmarshal(g.Body, &reply); err != nil {
		t.Fatal(err)
	}
	delete(reply, "sealedApiKey")
	want := map[string]any{"agentAddress": h.agent.Address.String(), "agentName": h.agent.Name, "agentDescription": "Helps", "relayBaseURL": in.URL, "apiKey": "", "secureChannel": true, "pq": float64(1)}
	if !maps.Equal(reply, want) {
		t.Errorf("reply %v", reply)
	}
	token := h.token(g, in.Nonce)
	access, err := h.keys.Validate(token)
	if err != nil || access.Audience != h.agent.Address || access.MasterScoped {
		t.Fatal(access, err)
	}
	m := h.keys.List()[0]
	if !strings.HasPrefix(m.Label, "Invite – é") || !strings.HasSuffix(m.Label, " ("+in.Nonce[:8]+")") || m.Expiration != accesskey.Year || m.ExpiresAt != h.now.Load()+365*86400 {
		t.Errorf("key %+v", m)
	}
	list, err := h.List(agentID)
	if err != nil || list[0].AccessKeyID != m.ID || list[0].RedeemedFrom != "203.0.113.9" || !list[0].UsedAt.Equal(h.time()) {
		t.Errorf("ledger %+v, %v", list, err)
	}
	if info, err := os.Stat(h.ledger(agentID)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	g.Delivered(nil)
	if !h.works(token) {
		t.Error("a delivered key does not work")
	}
	if err := h.Revoke(t.Context(), agentID, in.Nonce); err != nil || h.works(token) || h.state(in.Nonce) != InviteRevoked {
		t.Error("revoking the invite:", err, h.state(in.Nonce))
	}
	if err := h.Revoke(t.Context(), agentID, in.Nonce); err != nil {
		t.Error("again:", err)
	}
	g.Delivered(errors.New("late"))
	if h.state(in.Nonce) != InviteRevoked {
		t.Error("a revoked invite came back")
	}
}

// TestUndelivered: what reached nobody is no redemption.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	in := h.issue()
	g, err := h.redeem(in)
	if err != nil {
		t.Fatal(err)
	}
	first := h.token(g, in.Nonce)
	g.Delivered(errors.New("connection reset"))
	if h.works(first) || h.state(in.Nonce) != InviteActive {
		t.Fatal("the key lives, or the invite is spent:", h.state(in.Nonce))
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Redeem(gone, h.body(in, nil), ""); err == nil || h.alive() != 0 || h.state(in.Nonce) != InviteActive {
		t.Fatal("granted to nobody:", err, h.alive(), h.state(in.Nonce))
	}
	// While the first key cannot be revoked there is no second one.
	if g, err = h.redeem(in); err != nil {
		t.Fatal(err)
	}
	h.kill.at, h.kill.n = 1, 0
	g.Delivered(errors.New("connection reset"))
	*h.kill = killer{}
	h.open()
	if _, err := h.redeem(in); !errors.Is(err, fault.InviteRedeemed) || h.alive() > 1 {
		t.Error("a second key:", err, h.alive())
	}
}

func TestManyRedeemOneInvite(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	in := h.issue()
	var granted, refused atomic.Int64
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 100 {
		all.Go(func() {
			<-start
			switch g, err := h.redeem(in); {
			case err == nil:
				granted.Add(1)
				g.Delivered(nil)
			case errors.Is(err, fault.InviteRedeemed):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	if granted.Load() != 1 || refused.Load() != 99 || h.alive() != 1 {
		t.Errorf("%d granted, %d refused, %d keys", granted.Load(), refused.Load(), h.alive())
	}
}

// TestRevokedMeanwhile: revoking and redeeming at once never leaves a key that
// works beside a revoked invite.
func TestRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	for range 20 {
		h := newInviting(t)
		in := h.issue()
		var all sync.WaitGroup
		all.Go(func() { _, _ = h.redeem(in) })
		all.Go(func() {
			if err := h.Revoke(t.Context(), agentID, in.Nonce); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		if h.state(in.Nonce) != InviteRevoked || h.alive() != 0 {
			t.Fatalf("%s with %d keys", h.state(in.Nonce), h.alive())
		}
	}
}

// TestInviteCrashes kills the host at every durable write, before and after
// it. However it ends, one invite opens for one holder at most.
func TestInviteCrashes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps int
		do    func(h *inviting, in Invite) (delivered []string)
	}{
		"redeem": {4, func(h *inviting, in Invite) []string { // used, counter, metadata, key noted
			g, err := h.redeem(in)
			if err != nil {
				return nil
			}
			return []string{h.token(g, in.Nonce)}
		}},
		"not delivered": {7, func(h *inviting, in Invite) []string { // and revocation, metadata, ledger
			g, err := h.redeem(in)
			if err != nil {
				return nil
			}
			g.Delivered(errors.New("lost"))
			return []string{h.token(g, in.Nonce)} // it may have arrived all the same
		}},
		"revoke": {7, func(h *inviting, in Invite) []string {
			g, err := h.redeem(in)
			if err != nil {
				return nil
			}
			_ = h.Revoke(h.t.Context(), agentID, in.Nonce)
			return []string{h.token(g, in.Nonce)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				for _, after := range []bool{false, true} {
					h := newInviting(t)
					in := h.issue()
					h.kill.at, h.kill.after, h.kill.n = at, after, 0
					tokens := c.do(h, in)
					if !h.kill.dead {
						if at-1 != c.steps {
							t.Errorf("%d steps, want %d: update this test", at-1, c.steps)
						}
						return
					}
					*h.kill = killer{}
					h.open()
					works := slices.ContainsFunc(tokens, h.works)
					state := h.state(in.Nonce)
					g, err := h.redeem(in)
					if err == nil && works {
						t.Errorf("step %d (after: %v): a second key beside one that works", at, after)
					}
					if err == nil {
						g.Delivered(nil)
					} else if state == InviteActive {
						t.Errorf("step %d (after: %v): active, but %v", at, after, err)
					}
					if state == InviteRevoked && works {
						t.Errorf("step %d (after: %v): revoked, but its key works", at, after)
					}
					if err := h.Revoke(t.Context(), agentID, in.Nonce); err != nil || slices.ContainsFunc(tokens, h.works) {
						t.Errorf("step %d (after: %v): revoking afterwards: %v", at, after, err)
					}
				}
			}
		})
	}
}

func TestUnreadableLedger(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"garbage": "{", "an object": "{}", "unknown state": `[{"nonce":"NONCE","exp":1800003600,"status":"open"}]`, "no state": `[{"nonce":"NONCE","exp":1800003600}]`,
		"no nonce": `[{"exp":1800003600,"status":"active"}]`, "trailing": `[] []`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInviting(t)
			in := h.issue()
			content = strings.ReplaceAll(content, "NONCE", in.Nonce)
			if err := os.WriteFile(h.ledger(agentID), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := h.redeem(in); !errors.Is(err, fault.StateCorrupt) || fault.ReplyTo(err).Status != 500 {
				t.Error("redeemed:", err)
			}
			_, err := h.Issue(t.Context(), h.agent, time.Hour)
			if !errors.Is(err, fault.StateCorrupt) || !errors.Is(h.Revoke(t.Context(), agentID, in.Nonce), fault.StateCorrupt) {
				t.Error("issued or revoked:", err)
			}
			if raw, err := os.ReadFile(h.ledger(agentID)); err != nil || string(raw) != content || len(h.keys.List()) != 0 {
				t.Error("something was written", err)
			}
		})
	}
	// A ledger that is gone has registered nothing.
	h := newInviting(t)
	in := h.issue()
	if err := os.Remove(h.ledger(agentID)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.redeem(in); wire(err) != unknown {
		t.Error(err)
	}
}

func TestInviteLimits(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	for d, ok := range map[time.Duration]bool{MinInvite - 1: false, MinInvite: true, MaxInvite: true, MaxInvite + 1: false} {
		if _, err := h.Issue(t.Context(), h.agent, d); (err == nil) != ok {
			t.Errorf("%s: %v", d, err)
		}
	}
	for name, a := range map[string]InvitedAgent{"built in": {ID: agentID, Address: h.agent.Address, BuiltIn: true}, "no address": {ID: agentID}} {
		if _, err := h.Issue(t.Context(), a, time.Hour); !errors.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.offline.Store(true)
	if _, err := h.Issue(t.Context(), h.agent, time.Hour); err == nil {
		t.Error("invited to an agent nobody can reach")
	}
	h.offline.Store(false)
	for range MaxInvites - 2 {
		h.issue()
	}
	if _, err := h.Issue(t.Context(), h.agent, time.Hour); !errors.Is(err, fault.Usage) {
		t.Error("one too many:", err)
	}
	list, err := h.List(agentID)
	if err != nil || len(list) != MaxInvites {
		t.Fatal(len(list), err)
	}
	if err := h.Revoke(t.Context(), agentID, list[0].Nonce); err != nil {
		t.Fatal(err)
	}
	h.issue()
	// Thirty days after its expiry an invite leaves the ledger.
	last := list[MaxInvites-1]
	h.now.Store(last.Exp + int64(keepExpired/time.Second) - 1)
	if got := h.state(last.Nonce); got != InviteExpired {
		t.Error("a second before its purge:", got)
	}
	h.now.Add(1)
	if got := h.state(last.Nonce); got != "gone" {
		t.Error("after thirty days:", got)
	}
}

func TestFullLedger(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{maxLedger - 1: true, maxLedger: false} {
		h := newInviting(t)
		list := make([]IssuedInvite, n)
		for i := range list {
			list[i] = IssuedInvite{Nonce: base64url.Encode(fmt.Appendf(nil, "%032d", i)), Exp: h.now.Load(), Status: InviteUsed}
		}
		raw, err := json.Marshal(list)
		if err != nil || os.WriteFile(h.ledger(agentID), raw, 0o600) != nil {
			t.Fatal(err)
		}
		if _, err := h.Issue(t.Context(), h.agent, time.Hour); (err == nil) != ok {
			t.Errorf("%d on record: %v", n, err)
		}
	}
}

func TestAgain(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	in := h.issue()
	if got, err := h.Again(t.Context(), h.agent, in.Nonce); err != nil || got != in {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := h.redeem(in); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Again(t.Context(), h.agent, in.Nonce); !errors.Is(err, fault.Usage) {
		t.Error("a used invite is shown:", err)
	}
}

// TestLedgerModel compares random actions with a map.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		h := newInviting(t)
		type model struct {
			in    Invite
			state string
			token string
		}
		var all []*model
		pick := func(r *rapid.T) *model {
			if len(all) == 0 {
				r.Skip()
			}
			return all[rapid.IntRange(0, len(all)-1).Draw(r, "which")]
		}
		r.Repeat(map[string]func(*rapid.T){
			"issue": func(*rapid.T) { all = append(all, &model{in: h.issue(), state: InviteActive}) },
			"redeem": func(r *rapid.T) {
				m := pick(r)
				want := map[string]error{InviteUsed: fault.InviteRedeemed, InviteRevoked: fault.InviteRevoked}[m.state]
				if h.now.Load() >= m.in.Exp {
					want = fault.InviteExpired
				}
				g, err := h.redeem(m.in)
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					r.Fatalf("%s: got %v, want %v", m.state, err, want)
				}
				if err != nil {
					return
				}
				m.token = h.token(g, m.in.Nonce)
				if m.state = InviteUsed; rapid.Bool().Draw(r, "lost") {
					g.Delivered(errors.New("lost"))
					m.state = InviteActive
				}
			},
			"revoke": func(r *rapid.T) {
				m := pick(r)
				if err := h.Revoke(t.Context(), agentID, m.in.Nonce); err != nil {
					r.Fatal(err)
				}
				m.state = InviteRevoked
			},
			"wait":    func(r *rapid.T) { h.now.Add(rapid.Int64Range(1, 1200).Draw(r, "seconds")) },
			"restart": func(*rapid.T) { h.open() },
			"": func(r *rapid.T) {
				for _, m := range all {
					want := m.state
					if want == InviteActive && h.now.Load() >= m.in.Exp {
						want = InviteExpired
					}
					if got := h.state(m.in.Nonce); got != want {
						r.Fatalf("%s, want %s", got, want)
					}
					if m.token != "" && h.works(m.token) != (m.state == InviteUsed) {
						r.Fatalf("a key of an invite that is %s: works %v", m.state, h.works(m.token))
					}
				}
			},
		})
	})
}

// FuzzRedeem: whatever arrives is refused with a code of the table, and only
// the invite on record is granted, once.
func FuzzRedeem(f *testing.F) {
	h := newInviting(f)
	in := h.issue()
	f.Add(h.body(in, nil))
	f.Add(h.body(in, map[string]any{"v": 2}))
	f.Add([]byte(`{"owner_redeem":{"v":1,"agent_address":"` + h.agent.Address.Lower() + `","device_id":"a"}}`))
	f.Add([]byte(`{"owner_redeem":{"v":1,"agent_address":"` + h.agent.Address.Lower() + `","device_id":"a","nonce":"x","wallet_signature":"0x","encPub":"` + w64 + `"}}`))
	f.Add([]byte(`{"team_redeem":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := h.Redeem(t.Context(), body, "x")
		if err == nil {
			var c struct {
				Challenge json.RawMessage `json:"owner_challenge"`
			}
			if json.Unmarshal(g.Body, &c) != nil || c.Challenge == nil && h.alive() > 1 {
				t.Fatalf("granted %s", g.Body)
			}
			g.Delivered(nil)
			return
		}
		if s := fault.Of(err).Code.Status(); s < 400 || s >= 500 {
			t.Fatalf("refused with %v", err)
		}
	})
}
