package pairing

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/signature"
)

const (
	badOwnerKey   = `400 {"error":"encPub is required: a base64url X25519 public key (32 bytes)"}`
	badOwnerNonce = `401 {"error":"Unknown or expired challenge nonce"}`
	badOwnerSig   = `401 {"error":"Signature does not match this host's identity"}`
	ownerBuiltIn  = `403 {"error":"Built-in agents are not reachable from other devices"}`
)

// ownerBody is step one for the host's agent and device "mac-1", with members
// changed.
func (h *inviting) ownerBody(change map[string]any) []byte {
	h.t.Helper()
	m := map[string]any{"v": 1, "agent_address": h.agent.Address.Lower(), "device_id": "mac-1", "device_name": "Mac"}
	for k, v := range change {
		if v == absent {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	raw, err := json.Marshal(map[string]any{"owner_redeem": m})
	if err != nil {
		h.t.Fatal(err)
	}
	return raw
}

func (h *inviting) challenge(change map[string]any) string {
	h.t.Helper()
	g, err := h.Redeem(h.t.Context(), h.ownerBody(change), "")
	if err != nil {
		h.t.Fatal(err)
	}
	g.Delivered(nil)
	var c struct {
		Challenge struct {
			Nonce   string `json:"nonce"`
			Expires int    `json:"expires_in"`
		} `json:"owner_challenge"`
	}
	if err := json.Unmarshal(g.Body, &c); err != nil || len(c.Challenge.Nonce) != 64 || c.Challenge.Expires != 120 {
		h.t.Fatalf("%s, %v", g.Body, err)
	}
	return c.Challenge.Nonce
}

// proof is the second step's members.
func (h *inviting) proof(nonce string, by identity.Signer) map[string]any {
	h.t.Helper()
	sig, err := by.Sign(h.t.Context(), signature.EthereumMessage.Digest(ownerText(h.agent.Address, nonce)))
	if err != nil {
		h.t.Fatal(err)
	}
	return map[string]any{"nonce": nonce, "wallet_signature": sig.String(), "encPub": h.encPub}
}

func with(m map[string]any, name string, v any) map[string]any {
	m[name] = v
	return m
}

func TestOwnerShapes(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	for name, c := range map[string]struct {
		change map[string]any
		ok     bool
	}{
		"v 2":                      {map[string]any{"v": 2}, false},
		"no v":                     {map[string]any{"v": absent}, false},
		"no address":               {map[string]any{"agent_address": absent}, false},
		"bad address":              {map[string]any{"agent_address": "0x12"}, false},
		"zero address":             {map[string]any{"agent_address": "0x" + strings.Repeat("0", 40)}, false},
		"no device":                {map[string]any{"device_id": absent}, false},
		"empty device":             {map[string]any{"device_id": ""}, false},
		"device of 65":             {map[string]any{"device_id": strings.Repeat("a", MaxDeviceID+1)}, false},
		"device of 64":             {map[string]any{"device_id": strings.Repeat("a", MaxDeviceID)}, true},
		"device with a space":      {map[string]any{"device_id": "a b"}, false},
		"device with a line feed":  {map[string]any{"device_id": "a\n"}, false},
		"device of every sort":     {map[string]any{"device_id": "aZ09._-"}, true},
		"name of 81":               {map[string]any{"device_name": strings.Repeat("é", MaxDeviceName+1)}, false},
		"name of 80":               {map[string]any{"device_name": strings.Repeat("é", MaxDeviceName)}, true},
		"name is a number":         {map[string]any{"device_name": 1}, false},
		"no name":                  {map[string]any{"device_name": absent}, true},
		"null name":                {map[string]any{"device_name": nil}, true},
		"nonce is a number":        {map[string]any{"nonce": 1}, false},
		"address in checksum form": {map[string]any{"agent_address": h.agent.Address.String()}, true},
		"unknown agent":            {map[string]any{"agent_address": h.master.Address().String()}, true},
	} {
		_, err := h.Redeem(t.Context(), h.ownerBody(c.change), "")
		if (err == nil) != c.ok || err != nil && wire(err) != badPayload {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOwnerRefusals: what each refusal answers, and whether it spends the
// nonce.
func TestOwnerRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(h *inviting, nonce string) map[string]any // the second step
		want  string
		spent bool
	}{
		"no encPub": {func(h *inviting, n string) map[string]any { return with(h.proof(n, h.master), "encPub", absent) }, badOwnerKey, false},
		"low order": {func(h *inviting, n string) map[string]any {
			return with(h.proof(n, h.master), "encPub", strings.Repeat("A", 43))
		}, badOwnerKey, false},
		"short encPub":  {func(h *inviting, n string) map[string]any { return with(h.proof(n, h.master), "encPub", "AAAA") }, badOwnerKey, false},
		"locked":        {func(h *inviting, n string) map[string]any { h.locked.Store(true); return h.proof(n, h.master) }, noIdentity, false},
		"unknown nonce": {func(h *inviting, _ string) map[string]any { return h.proof(strings.Repeat("0", 64), h.master) }, badOwnerNonce, false},
		"no nonce":      {func(h *inviting, n string) map[string]any { return with(h.proof(n, h.master), "nonce", absent) }, badOwnerNonce, false},
		"other device":  {func(h *inviting, n string) map[string]any { return with(h.proof(n, h.master), "device_id", "mac-2") }, badOwnerNonce, false},
		"other agent": {func(h *inviting, n string) map[string]any {
			return with(h.proof(n, h.master), "agent_address", h.master.Address().String())
		}, badOwnerNonce, false},
		"no signature": {func(h *inviting, n string) map[string]any {
			return with(h.proof(n, h.master), "wallet_signature", absent)
		}, badOwnerSig, true},
		"short signature": {func(h *inviting, n string) map[string]any {
			return with(h.proof(n, h.master), "wallet_signature", "0x00")
		}, badOwnerSig, true},
		"other wallet": {func(h *inviting, n string) map[string]any { return h.proof(n, h.signer) }, badOwnerSig, true},
		"other wording": {func(h *inviting, n string) map[string]any {
			sig, err := h.master.Sign(h.t.Context(), signature.EthereumMessage.Digest([]byte("osaurus-teams:redeem:"+h.agent.Address.Lower()+":"+n)))
			if err != nil {
				h.t.Error(err)
			}
			return with(h.proof(n, h.master), "wallet_signature", sig.String())
		}, badOwnerSig, true},
		"other domain": {func(h *inviting, n string) map[string]any {
			sig, err := h.master.Sign(h.t.Context(), signature.SignedMessage.Digest(ownerText(h.agent.Address, n)))
			if err != nil {
				h.t.Error(err)
			}
			return with(h.proof(n, h.master), "wallet_signature", sig.String())
		}, badOwnerSig, true},
		"address gone": {func(h *inviting, n string) map[string]any { h.disabled.Store(true); return h.proof(n, h.master) }, noAgent, true},
		"built in":     {func(h *inviting, n string) map[string]any { h.builtIn.Store(true); return h.proof(n, h.master) }, ownerBuiltIn, true},
		"too late":     {func(h *inviting, n string) map[string]any { h.now.Add(120); return h.proof(n, h.master) }, badOwnerNonce, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInviting(t)
			nonce := h.challenge(nil)
			_, err := h.Redeem(t.Context(), h.ownerBody(c.do(h, nonce)), "")
			if got := wire(err); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if devices, err := h.Devices(); err != nil || len(devices) != 0 || len(h.keys.List()) != 0 {
				t.Error("a refusal left something behind")
			}
			h.locked.Store(false)
			h.disabled.Store(false)
			h.builtIn.Store(false)
			if _, err := h.Redeem(t.Context(), h.ownerBody(h.proof(nonce, h.master)), ""); (err != nil) != c.spent {
				t.Errorf("nonce spent: want %v, then %v", c.spent, err)
			}
		})
	}
}

func TestOwnerRedeems(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	h.offline.Store(true) // the device reached us another way
	redeem := func(device, name string) string {
		t.Helper()
		who := map[string]any{"device_id": device, "device_name": name}
		nonce := h.challenge(who)
		proof := h.proof(nonce, h.master)
		proof["device_id"], proof["device_name"] = device, name
		body := h.ownerBody(proof)
		g, err := h.Redeem(t.Context(), body, "")
		if err != nil {
			t.Fatal(err)
		}
		g.Delivered(nil)
		if _, err := h.Redeem(t.Context(), body, ""); wire(err) != badOwnerNonce {
			t.Error("replayed:", err)
		}
		var r map[string]any
		if err := json.Unmarshal(g.Body, &r); err != nil || r["relayBaseURL"] != "https://"+h.agent.Address.Lower()+"."+domain || r["apiKey"] != "" || r["secureChannel"] != true || r["agentName"] != "Assistant" {
			t.Errorf("%s, %v", g.Body, err)
		}
		if _, there := r["agentDescription"]; there {
			t.Error("a description")
		}
		return h.token(g, nonce)
	}
	long := strings.Repeat("é", MaxDeviceName)
	first, other := redeem("mac-1", "My\x1b Mac"), redeem("mac-2", long)
	second := redeem("mac-1", "")
	if h.works(first) || !h.works(second) || !h.works(other) {
		t.Error("one live key for each device: ", h.works(first), h.works(second), h.works(other))
	}
	devices, err := h.Devices()
	if err != nil || len(devices) != 2 || devices[0].DeviceID != "mac-2" || devices[1].DeviceName != "mac-1" {
		t.Errorf("%+v, %v", devices, err)
	}
	var labels []string
	for _, m := range h.keys.List() {
		labels = append(labels, m.Label)
		if m.Expiration != accesskey.Days90 || len([]rune(m.Label)) > accesskey.MaxLabel {
			t.Errorf("%+v", m)
		}
	}
	if all := strings.Join(labels, "|"); !strings.Contains(all, "Owner device – My Mac") || !strings.Contains(all, "Owner device – mac-1") {
		t.Error(all)
	}
	if info, err := os.Stat(h.devices()); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	h.open()
	if n, err := h.ForgetDevices(t.Context(), func(d OwnerDevice) bool { return d.DeviceID == "mac-2" }); n != 1 || err != nil || h.works(other) || !h.works(second) {
		t.Error("forgetting one:", n, err)
	}
	if err := h.Retire(t.Context(), agentID, h.agent.Address); err != nil {
		t.Fatal(err)
	}
	if devices, err = h.Devices(); err != nil || len(devices) != 0 {
		t.Error("after the address went:", devices, err)
	}
}

func TestOwnerChallenges(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	old := h.challenge(nil)
	fresh := h.challenge(nil)
	if len(h.owner.pending) != 1 {
		t.Error("two for one device:", len(h.owner.pending))
	}
	for nonce, ok := range map[string]bool{old: false, fresh: true} {
		if got := h.owner.spend(ownerDevice{h.agent.Address, "mac-1"}, nonce, h.time()); got != ok {
			t.Errorf("newest %v: %v", ok, got)
		}
	}
	for i := range MaxOwnerChallenges {
		h.challenge(map[string]any{"device_id": fmt.Sprint("d", i)})
	}
	has := func(i int) bool { return h.owner.pending[ownerDevice{h.agent.Address, fmt.Sprint("d", i)}].nonce != "" }
	if len(h.owner.pending) != MaxOwnerChallenges || !has(0) {
		t.Error("evicted within the limit")
	}
	h.challenge(map[string]any{"device_id": "more"})
	if len(h.owner.pending) != MaxOwnerChallenges || has(0) || !has(1) {
		t.Error("not the oldest was evicted")
	}
	late := h.challenge(nil)
	h.now.Add(int64(ChallengeTTL/time.Second) - 1)
	if _, err := h.Redeem(t.Context(), h.ownerBody(h.proof(late, h.master)), ""); err != nil {
		t.Error("in its last second:", err)
	}
}

// TestOwnerCrashes: wherever the host dies, a device has one key that works at
// most, and can redeem again.
func TestOwnerCrashes(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		for _, after := range []bool{false, true} {
			h := newInviting(t)
			var tokens []string
			redeem := func() error {
				nonce := h.challenge(nil)
				g, err := h.Redeem(t.Context(), h.ownerBody(h.proof(nonce, h.master)), "")
				if err == nil {
					g.Delivered(nil)
					tokens = append(tokens, h.token(g, nonce))
				}
				return err
			}
			if err := redeem(); err != nil {
				t.Fatal(err)
			}
			h.kill.at, h.kill.after, h.kill.n = at, after, 0
			_ = redeem()
			if !h.kill.dead {
				if at-1 != 5 { // counter, metadata; revocation, metadata; record
					t.Errorf("%d steps, want 5: update this test", at-1)
				}
				return
			}
			*h.kill = killer{}
			h.open()
			if err := redeem(); err != nil {
				t.Fatalf("step %d (after: %v): %v", at, after, err)
			}
			works := 0
			for _, token := range tokens {
				if h.works(token) {
					works++
				}
			}
			if works != 1 || !h.works(tokens[len(tokens)-1]) {
				t.Errorf("step %d (after: %v): %d keys work", at, after, works)
			}
		}
	}
}

func TestOwnerUndelivered(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	nonce := h.challenge(nil)
	g, err := h.Redeem(t.Context(), h.ownerBody(h.proof(nonce, h.master)), "")
	if err != nil {
		t.Fatal(err)
	}
	g.Delivered(errors.New("lost"))
	if devices, err := h.Devices(); err != nil || len(devices) != 0 || h.works(h.token(g, nonce)) {
		t.Error("a key that reached nobody:", devices, err)
	}
	if err := os.WriteFile(h.devices(), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	nonce = h.challenge(nil)
	if _, err := h.Redeem(t.Context(), h.ownerBody(h.proof(nonce, h.master)), ""); !errors.Is(err, fault.StateCorrupt) || h.alive() != 0 {
		t.Error("over a list that cannot be read:", err, h.alive())
	}
}
