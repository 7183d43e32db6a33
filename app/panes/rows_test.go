package panes_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/app/panes"
	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

func TestIdentityThatCannotBeRead(t *testing.T) { // ID-1
	t.Parallel()
	for state, offersRecovery := range map[string]bool{"locked": false, "missing": true} {
		h := newScripted()
		h.id.State = state
		d := drive(t, h, panes.Env{})
		b := d.banner(panes.Identity, "identity-error")
		if b == nil || b.Tone != panes.Danger || d.section(panes.Identity, "setup") != nil {
			t.Fatalf("%s looks like no identity", state)
		}
		if _, ok := d.action(panes.Identity, "identity-create"); ok {
			t.Errorf("%s offers to create one", state)
		}
		if b.Actions[0].ID != "refresh" || (len(b.Actions) > 1) != offersRecovery {
			t.Errorf("%s: %+v", state, b.Actions)
		}
		h.mu.Lock()
		h.id.State = "ready"
		h.mu.Unlock()
		d.do("refresh")
		if d.banner(panes.Identity, "identity-error") != nil || d.section(panes.Identity, "master") == nil {
			t.Errorf("%s: retrying does not help", state)
		}
	}
}

// TestBeforeTheFirstAnswer: nothing looks like no identity, and nothing can be
// done.
func TestBeforeTheFirstAnswer(t *testing.T) { // ID-1
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScripted()
		h.slow = time.Second
		m := panes.New(h, panes.Env{})
		d := driver{m, t}
		if s := m.View(panes.Identity).Sections; len(s) != 1 || s[0].ID != "checking" || len(offers(m)) != 0 {
			t.Errorf("%+v, %v", s, offers(m))
		}
		pass(h.slow)
		synctest.Wait()
		if d.section(panes.Identity, "checking") != nil || d.section(panes.Identity, "master") == nil {
			t.Errorf("%+v", m.View(panes.Identity).Sections)
		}
		m.Close()
	})
}

// TestSetupWhileBusy: the card is off while it works, and an error shows on
// its pane.
func TestSetupWhileBusy(t *testing.T) { // ID-2
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScripted()
		h.id.State, h.hold, h.fails, h.noPhrase = "none", time.Second, errors.New("the disk is full"), true
		m := panes.New(h, panes.Env{})
		d := driver{m, t}
		synctest.Wait()
		if err := d.refused("identity-create"); err != nil {
			t.Fatal(err)
		}
		for _, again := range []string{"identity-create", "identity-recover"} {
			if err := d.refused(again); !errors.Is(err, panes.ErrOff) {
				t.Errorf("%s while it works: %v", again, err)
			}
		}
		pass(h.hold)
		synctest.Wait()
		if b := d.banner(panes.Identity, "result-"); b == nil || b.Tone != panes.Danger || !slices.Equal(b.Lines, []string{"the disk is full"}) {
			t.Errorf("%+v", b)
		}
		if a, ok := d.action(panes.Identity, "identity-create"); !ok || a.Off {
			t.Error("it cannot be tried again")
		}
		m.Close()
	})
}

func TestRepairedWithErrors(t *testing.T) { // ID-6
	t.Parallel()
	h := newScripted()
	h.drift = control.Drift{Mismatched: []control.NamedAgent{{ID: "A1", Name: "Rex"}}}
	h.unrepaired = []string{"Rex: the file is read-only"}
	d := drive(t, h, panes.Env{})
	d.do("drift-repair")
	d.do("confirm")
	if b := d.banner(panes.Identity, "result-"); b == nil || b.Tone != panes.Warn || !slices.Equal(b.Lines, h.unrepaired) {
		t.Errorf("%+v", b)
	}
}

func TestPosture(t *testing.T) { // ST-1, ST-4
	t.Parallel()
	for want, formats := range map[string][]string{"Encrypted": {"encrypted", "encrypted"}, "Plaintext": {"plaintext"}, "Mixed": {"encrypted", "plaintext"}, "Empty": {""}} {
		h := newScripted()
		h.stores.Stores = nil
		for _, f := range formats {
			h.stores.Stores = append(h.stores.Stores, storage.StoreStatus{ID: "memory", Format: f})
		}
		d := drive(t, h, panes.Env{})
		if got := badges(d.mustSection(panes.Storage, "status").Rows[0]); !slices.Equal(got, []string{want}) {
			t.Errorf("%v: %v", formats, got)
		}
		if len(d.mustSection(panes.Storage, "backup").Rows) != 0 {
			t.Error("a backup was made before one was")
		}
		d.do("storage-export")
		d.do("confirm", "dest", "/nowhere", "kind", "tar")
		if rows := d.mustSection(panes.Storage, "backup").Rows; len(rows) != 1 || !strings.Contains(rows[0].Title, "A backup was made") {
			t.Errorf("%+v", rows)
		}
	}
	for state, want := range map[storage.KeyState]string{storage.KeyMissing: "Missing", storage.KeyLocked: "The keystore is locked"} {
		h := newScripted()
		h.stores.Key.State = state
		d := drive(t, h, panes.Env{})
		s := d.mustSection(panes.Storage, "status")
		if s.Tone != panes.Danger || !strings.HasPrefix(fact(s.Facts, "Storage key"), want) {
			t.Errorf("%v: %+v", state, s)
		}
		if a, ok := d.action(panes.Storage, "storage-rotate"); !ok || !a.Off {
			t.Error("a key that is not there can be rotated")
		}
	}
}

func TestSetupFails(t *testing.T) { // ID-2
	t.Parallel()
	h := newScripted()
	h.id.State, h.fails = "none", errors.New("the disk is full")
	d := drive(t, h, panes.Env{})
	d.do("identity-create")
	if s := d.sheet(); s == nil || s.Kind != "phrase" {
		t.Error("a phrase that was made does not show, because something after it failed")
	}
}

func TestRecover(t *testing.T) { // ID-6, ID-12
	t.Parallel()
	h := startHost(t)
	d := drive(t, h, panes.Env{})
	phrase := d.withIdentity()
	words := strings.Fields(phrase)
	other := drive(t, startHost(t), panes.Env{}).withIdentity()
	d.withAgent("Rex")
	d.do("identity-recover")
	swapped := slices.Clone(words)
	swapped[3] = "zoo" // the wrong last word or, at worst, still no checksum
	for typed, want := range map[string]string{
		"":                            "There are 0 words",
		strings.Join(words[:23], " "): "There are 23 words",
		"ozaurus " + strings.Join(words[1:], " "): "Word 1 is not",
		strings.Repeat("abandon ", 24):            "no phrase",
		strings.Repeat("abandon ", 4000):          "too long",
	} {
		d.do("confirm", "phrase", typed)
		s := d.sheet()
		if s == nil || !strings.Contains(s.Error, want) || strings.Contains(s.Error, "ozaurus") {
			t.Fatalf("%.20q: %+v, want %q", typed, s, want)
		}
		if s.Fields[0].Value != "" {
			t.Error("the model keeps what was typed")
		}
	}
	if got := d.Check(map[string]string{"phrase": "1. one 2) two\n3 three"}); got != "3 of 24 words" {
		t.Error(got)
	}
	d.do("confirm", "phrase", other)
	s := d.sheet()
	if s == nil || len(s.Facts) != 2 || s.Facts[0].Value == s.Facts[1].Value || s.Actions[len(s.Actions)-1].ID != "cancel" {
		t.Fatalf("another identity's phrase: %+v", s)
	}
	d.do("cancel")
	d.do("identity-recover")
	if d.refused("anyway", "phrase", other) == nil {
		t.Error("anyway is there before the phrase was seen to be another's")
	}
	d.do("confirm", "phrase", strings.ToUpper(phrase))
	if b := d.banner(panes.Identity, "result-"); d.sheet() != nil || b == nil || b.Title != "The identity was recovered." {
		t.Errorf("%+v %+v", d.sheet(), b)
	}
	d.choose(panes.Identity, "dismiss:")
	if d.banner(panes.Identity, "result-") != nil {
		t.Error("a result cannot be dismissed")
	}
}

func TestDrift(t *testing.T) { // ID-5, ID-6, ID-8
	t.Parallel()
	agent, key := control.NamedAgent{ID: "A1", Name: "Rex"}, "K1"
	for want, drift := range map[string]control.Drift{
		"1 agent not of this identity.":                     {Mismatched: []control.NamedAgent{agent}},
		"2 keys not of this identity.":                      {StaleKeys: []string{key, "K2"}},
		"1 agent and 1 key do not belong to this identity.": {Mismatched: []control.NamedAgent{agent}, StaleKeys: []string{key}},
	} {
		h := newScripted()
		h.drift = drift
		d := drive(t, h, panes.Env{})
		b := d.banner(panes.Identity, "drift")
		if b == nil || b.Title != want || b.Tone != panes.Danger || len(b.Actions) != 3 {
			t.Fatalf("%+v, want %q", b, want)
		}
		if len(drift.Mismatched) > 0 && !slices.Contains(badges(d.mustSection(panes.Agents, "agents").Rows[0]), "Not of this identity") {
			t.Error("the agent is not marked")
		}
		d.do("drift-repair")
		if text := strings.Join(d.sheet().Text, " "); !strings.Contains(text, "Peers have to pair again") || d.sheet().Tone != panes.Danger {
			t.Errorf("the confirmation says %q", text)
		}
		d.do("confirm")
		if h.called("repair") != 1 || d.banner(panes.Identity, "result-") == nil {
			t.Error("nothing was repaired")
		}
	}
	h := newScripted()
	h.drift.ScopesRestored = 2
	if b := drive(t, h, panes.Env{}).banner(panes.Identity, "scopes"); b == nil || b.Title != "The device scope of 2 agents was restored. No keys changed." {
		t.Errorf("%+v", b)
	}
}

func TestReset(t *testing.T) { // ID-16
	t.Parallel()
	h := startHost(t)
	d := drive(t, h, panes.Env{})
	d.withIdentity()
	d.withAgent("Rex")
	d.do("identity-reset")
	s := d.sheet()
	if text := strings.Join(s.Text, " "); !strings.Contains(text, "lose their addresses") || !strings.Contains(text, "24 words") {
		t.Errorf("what is lost: %s", text)
	}
	for _, word := range []string{"", "reset", "RESET "} {
		d.do("confirm", "word", word)
		if d.sheet() == nil || d.sheet().Error == "" {
			t.Fatalf("%q confirms", word)
		}
	}
	if d.Do(panes.Input{Action: "confirm", Via: panes.Return, Values: map[string]string{"word": "RESET"}}) == nil {
		t.Error("Return confirms")
	}
	d.do("confirm", "word", "RESET")
	if d.section(panes.Identity, "setup") == nil {
		t.Errorf("%+v", d.View(panes.Identity))
	}
}

func TestAgentsAndKeys(t *testing.T) { // ID-8, ID-9, ID-10, ID-11
	t.Parallel()
	d := drive(t, startHost(t), panes.Env{})
	d.withIdentity()
	id := d.withAgent("Rex")
	row := func() panes.Row {
		rows := d.mustSection(panes.Agents, "agents").Rows
		return rows[slices.IndexFunc(rows, func(r panes.Row) bool { return r.ID == id })]
	}
	first := row()
	if first.Address == "" || first.Short == first.Address || !strings.Contains(first.Short, "…") {
		t.Errorf("%+v", first)
	}
	d.do("key-create:" + id)
	s := d.sheet()
	if s.Text[0] != "It works for Rex and no other agent." || s.Fields[1].Value != "90d" || len(s.Fields[1].Options) != 4 {
		t.Errorf("%+v", s)
	}
	for _, label := range []string{"", "  ", strings.Repeat("ü", 81)} {
		d.do("confirm", "label", label, "expiration", "90d")
		if d.sheet() == nil || d.sheet().Error == "" {
			t.Fatalf("the label %.10q is taken", label)
		}
	}
	d.do("confirm", "label", "x", "expiration", "2y")
	if d.sheet().Error == "" {
		t.Error("2 years is taken")
	}
	d.do("confirm", "label", " my \t laptop ", "expiration", "30d")
	s = d.sheet()
	if s == nil || s.Kind != "newkey" || !strings.HasPrefix(s.Secret.Text(), "osk-v1.") {
		t.Fatalf("%+v", s)
	}
	d.do("cancel")
	if s.Secret.Text() != "" {
		t.Error("the key is there after it was dismissed")
	}
	key := row().Rows[0]
	if key.Title != "my laptop" || !slices.Contains(badges(key), "Active") || !strings.HasSuffix(key.Text, "…") {
		t.Errorf("%+v", key)
	}
	d.do("agent-rotate:" + id)
	if text := strings.Join(d.sheet().Text, " "); !strings.Contains(text, "1 active key stops working") {
		t.Error(text)
	}
	d.do("confirm")
	if row().Address == first.Address {
		t.Error("the address is the same")
	}
	if gone := d.mustSection(panes.Agents, "keys").Rows; len(gone) != 1 || !slices.Contains(badges(gone[0]), "Revoked") || len(gone[0].Actions) != 0 {
		t.Errorf("%+v", gone)
	}
	d.do("agent-revoke:" + id)
	d.do("confirm")
	if r := row(); r.Address != "" || r.Actions[0].ID != "agent-assign:"+id {
		t.Errorf("%+v", r)
	}
	d.do("agent-assign:" + id)
	if row().Address == "" {
		t.Error("it has no address")
	}
}

func TestBadges(t *testing.T) { // ID-10
	t.Parallel()
	now := time.Now()
	h := newScripted()
	agent, master := h.agents[0].Address, h.id.Address
	h.keys = []accesskey.Metadata{
		{ID: "old", CreatedAt: 1, Audience: master, ExpiresAt: now.Add(time.Hour).Unix()},
		{ID: "expired", CreatedAt: 2, Audience: agent, ExpiresAt: now.Unix() - 1},
		{ID: "revoked", CreatedAt: 3, Audience: agent, Revoked: true},
		{ID: "temporary", CreatedAt: 4, Audience: agent, Temporary: true, ExpiresAt: now.Add(time.Hour).Unix()},
		{ID: "legacy", CreatedAt: 5, Audience: address.Address{19: 77}},
	}
	d := drive(t, h, panes.Env{})
	got := map[string]string{}
	var order []string
	for _, r := range append(d.mustSection(panes.Agents, "agents").Rows[0].Rows, d.mustSection(panes.Agents, "keys").Rows...) {
		got[r.ID] = strings.Join(badges(r), ",")
		order = append(order, r.ID)
	}
	for id, want := range map[string]string{"old": "Active,All agents", "expired": "Expired", "revoked": "Revoked", "temporary": "Active,Temporary", "legacy": "Legacy"} {
		if got[id] != want {
			t.Errorf("%s has %s, want %s", id, got[id], want)
		}
	}
	if want := []string{"temporary", "revoked", "expired", "legacy", "old"}; !slices.Equal(order, want) {
		t.Errorf("newest first: %v", order)
	}
}

func TestTrust(t *testing.T) { // ID-14
	t.Parallel()
	d := drive(t, startHost(t), panes.Env{})
	d.withIdentity()
	const addr = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	d.do("trust-add")
	for _, wrong := range []string{"", "0x12", strings.Replace(addr, "f39F", "F39F", 1), "0x" + strings.Repeat("0", 40)} {
		d.do("confirm", "address", wrong)
		if d.sheet() == nil || d.sheet().Error == "" {
			t.Fatalf("%q is taken", wrong)
		}
	}
	d.do("confirm", "address", " "+addr+" ", "agent", "")
	rows := d.mustSection(panes.Agents, "trust").Rows
	if len(rows) != 1 || rows[0].Address != addr || rows[0].Text != "All agents" {
		t.Fatalf("%+v", rows)
	}
	d.choose(panes.Agents, "trust-remove:")
	d.do("confirm")
	if len(d.mustSection(panes.Agents, "trust").Rows) != 0 {
		t.Error("it is still trusted")
	}
}

func TestPeersInvitesAndLinks(t *testing.T) { // ID-15, LNK-1
	t.Parallel()
	h := newScripted()
	d := drive(t, h, panes.Env{})
	peer := d.mustSection(panes.Peers, "peers").Rows[0]
	if peer.Title != "Studio" || fact(peer.Facts, "Pinned address") == "" || fact(peer.Facts, "Last seen at") == "" || fact(peer.Facts, "Last used") != "Never" {
		t.Errorf("%+v", peer)
	}
	d.choose(panes.Peers, "peer-forget:")
	d.do("confirm")
	rows := d.mustSection(panes.Peers, "invites").Rows
	if len(rows) != 2 || badges(rows[0])[0] != "Active" || badges(rows[1])[0] != "Used" || fact(rows[1].Facts, "Redeemed from") != "192.0.2.9" || len(rows[1].Actions) != 1 {
		t.Errorf("%+v", rows)
	}
	d.do("invite-create")
	d.do("confirm", "agent", "A1", "days", "365")
	if d.sheet().Error == "" {
		t.Error("a year is taken")
	}
	d.do("confirm", "agent", "A1", "days", "7")
	s := d.sheet()
	if s == nil || !s.QR || s.Secret.Text() != someLink {
		t.Fatalf("%+v", s)
	}
	d.do("cancel")
	if s.Secret.Text() != "" {
		t.Error("the link stays")
	}
	d.choose(panes.Peers, "invite-revoke:")
	d.do("confirm")
	if h.called("forget") != 1 || h.called("invite-revoke") != 1 {
		t.Errorf("%v", h.calls)
	}
	d.OpenLink(someLink)
	d.settled()
	s = d.sheet()
	if s == nil || fact(s.Facts, "Name") != "<b>Rex</b>" || fact(s.Facts, "Host") != "https://x.example" || !strings.Contains(strings.Join(s.Text, " "), "paired with this agent already, as Studio") || h.called("accept") != 0 {
		t.Fatalf("%+v", s)
	}
	d.do("confirm")
	if h.called("accept") != 1 {
		t.Error("it was not accepted")
	}
}

func TestStorage(t *testing.T) { // ST-1, ST-2, ST-4, ST-5, ST-6, ST-7, ST-9
	t.Parallel()
	h := startHost(t)
	d := drive(t, h, panes.Env{DiskEncrypted: func(context.Context) panes.DiskState { return panes.DiskPlain }})
	d.withIdentity()
	id := d.withAgent("Rex")
	if badges(d.mustSection(panes.Storage, "status").Rows[0])[0] != "Empty" {
		t.Error("an empty home does not look empty")
	}
	if _, err := h.AddFact(t.Context(), control.Remember{Agent: id, Text: "likes ferns"}); err != nil {
		t.Fatal(err)
	}
	d.Refresh()
	d.settled()
	s := d.mustSection(panes.Storage, "status")
	if badges(s.Rows[0])[0] != "Encrypted" || fact(s.Facts, "Storage key") != "Present" || fact(s.Facts, "Keystore item") != "com.osaurus.storage / data-encryption-key" || !strings.Contains(fact(s.Facts, "Cipher"), "4096") {
		t.Errorf("%+v", s)
	}
	if len(d.mustSection(panes.Storage, "about").Rows) != 3 {
		t.Error("there are not three facts")
	}
	d.do("storage-rotate")
	if !strings.Contains(strings.Join(d.sheet().Text, " "), "no backup") || d.sheet().Actions[0].ID != "export" {
		t.Errorf("%+v", d.sheet())
	}
	d.do("export")
	d.do("confirm", "dest", "relative")
	if d.sheet().Error == "" {
		t.Error("a relative folder is taken")
	}
	d.do("confirm", "dest", t.TempDir(), "kind", "age", "recipients", " ")
	if d.sheet().Error == "" {
		t.Error("an encrypted archive for nobody")
	}
	dest := t.TempDir()
	d.do("confirm", "dest", dest, "kind", "folder")
	if list, err := filepath.Glob(filepath.Join(dest, "osaurus-export-*")); err != nil || len(list) != 1 {
		t.Fatalf("%v %v: %+v", list, err, d.View(panes.Storage).Banners)
	}
	if s := d.sheet(); s == nil || s.Kind != "rotatekey" || len(s.Actions) != 2 {
		t.Fatalf("it does not go on with the rotation: %+v", s)
	}
	before := fact(s.Facts, "Key ID")
	d.do("confirm")
	if now := fact(d.mustSection(panes.Storage, "status").Facts, "Key ID"); now == before {
		t.Errorf("the key is the same: %+v", d.View(panes.Storage).Banners)
	}
	d.do("storage-decrypt")
	if !strings.Contains(strings.Join(d.sheet().Text, " "), "The disk is not encrypted either.") {
		t.Errorf("%v", d.sheet().Text)
	}
	d.do("confirm")
	if badges(d.mustSection(panes.Storage, "status").Rows[0])[0] != "Plaintext" {
		t.Errorf("%+v", d.View(panes.Storage).Banners)
	}
	d.do("storage-encrypt")
	d.do("confirm")
	if badges(d.mustSection(panes.Storage, "status").Rows[0])[0] != "Encrypted" {
		t.Errorf("%+v", d.View(panes.Storage).Banners)
	}
	d.do("storage-maintain")
	d.do("storage-verify")
	if rows := d.mustSection(panes.Storage, "maintenance").Rows; len(rows) == 0 || fact(rows[0].Facts, "Optimize") == "Never" {
		t.Errorf("%+v", rows)
	}
}

func TestStoresWithIssues(t *testing.T) { // ST-3
	t.Parallel()
	h := newScripted()
	h.stores.Stores = nil
	want := map[storage.IssueKind]string{storage.IssueLocked: "LOCKED", storage.IssueCorrupt: "CORRUPT", storage.IssueMissing: "CORRUPT", storage.IssueMigration: "MIGRATION", storage.IssueForwardVersion: "MIGRATION", storage.IssueUnexpectedPlaintext: "ERROR", storage.IssueUnsafePath: "ERROR", storage.IssueUnknown: "ERROR"}
	for k := range want {
		h.stores.Stores = append(h.stores.Stores, storage.StoreStatus{ID: storage.ID(k), Issue: k, State: storage.StateRefused})
	}
	d := drive(t, h, panes.Env{})
	for _, r := range d.mustSection(panes.Storage, "stores").Rows {
		if got := badges(r); len(got) != 1 || got[0] != want[storage.IssueKind(r.ID)] || r.Text == "" {
			t.Errorf("%s: %v %q", r.ID, got, r.Text)
		}
	}
	d.do("store-retry:locked")
	d.do("store-reset:corrupt")
	if !strings.Contains(strings.Join(d.sheet().Text, " "), "never deleted") {
		t.Error("nothing says that it is not deleted")
	}
	d.do("confirm")
	d.do("store-accept:unexpected-plaintext")
	d.do("confirm")
	if _, ok := d.action(panes.Storage, "store-accept:locked"); ok {
		t.Error("a locked store can be accepted")
	}
	d.do("remains-keep:memory/vectura")
	d.do("remains-delete:memory/vectura")
	d.do("confirm")
	for _, c := range []string{"store-retry", "store-reset", "store-accept", "remains-keep", "remains-delete"} {
		if h.called(c) != 1 {
			t.Errorf("%s was called %d times", c, h.called(c))
		}
	}
}

func TestBusy(t *testing.T) { // ST-4, ST-8, ST-9
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScripted()
		h.hold = 10 * time.Second
		m := panes.New(h, panes.Env{Home: "/nowhere"})
		d := driver{m, t}
		synctest.Wait()
		start := func() {
			if err := errors.Join(d.refused("storage-export"), d.refused("confirm", "dest", "/nowhere", "kind", "tar")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		start()
		w := m.View(panes.Identity).Working
		if w == nil || w.Done != 1 || w.Total != 2 || w.Cancel == nil || !strings.Contains(w.Text, "1 B of 2 B") || !m.Busy() {
			t.Fatalf("%+v", w)
		}
		for _, other := range []string{"storage-rotate", "identity-reset", "storage-export", "agent-rotate:A1"} {
			if err := d.refused(other); !errors.Is(err, panes.ErrOff) {
				t.Errorf("%s beside an operation: %v", other, err)
			}
		}
		if err := d.refused("work-cancel"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b := d.banner(panes.Storage, "result-"); m.Busy() || b == nil || !strings.HasPrefix(b.Title, "Cancelled") {
			t.Errorf("%+v", b)
		}
		h.fails = errors.New("the disk is full")
		start()
		<-time.After(h.hold)
		synctest.Wait()
		if b := d.banner(panes.Storage, "result-"); b == nil || b.Tone != panes.Danger || !slices.Equal(b.Lines, []string{"the disk is full"}) {
			t.Errorf("%+v", b)
		}
		h.stores.Operation = "rotate" // begun by another program
		m.Refresh()
		synctest.Wait()
		if w := m.View(panes.Storage).Working; w == nil || w.Title != "Rotating the storage key" || !errors.Is(d.refused("storage-export"), panes.ErrOff) {
			t.Errorf("%+v", w)
		}
		m.Close()
	})
}

func TestNoHost(t *testing.T) { // ID-1
	t.Parallel()
	h := control.NewClient(filepath.Join(t.TempDir(), "none"))
	defer h.Close()
	d := drive(t, h, panes.Env{})
	for _, p := range panes.All {
		b := d.banner(p, "host")
		if b == nil || b.Actions[0].ID != "refresh" {
			t.Errorf("%s: %+v", p, d.View(p))
		}
	}
	if _, ok := d.action(panes.Identity, "identity-create"); ok {
		t.Error("it looks like no identity")
	}
	if _, err := os.Stat(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("something was written")
	}
}

// switchboard is a host that can be started and stopped.
type switchboard struct{ started, stopped chan bool }

func (s switchboard) Start() { s.started <- true }
func (s switchboard) Stop()  { s.stopped <- true }

func TestMenu(t *testing.T) { // MB-2, MB-3, MB-4, MB-5
	t.Parallel()
	h, board := newScripted(), switchboard{make(chan bool, 1), make(chan bool, 1)}
	d := drive(t, h, panes.Env{Serving: board})
	if v := d.Menu(); v.Line != "Stopped" || v.URL != "" {
		t.Errorf("%+v", v)
	}
	d.do("host-start")
	<-board.started
	if v := d.Menu(); v.Line != "Starting…" || d.refused("host-start") == nil {
		t.Errorf("%+v", v)
	}
	for f, want := range map[panes.Failure]string{panes.PortInvalid: "1 to 65535", panes.PortInUse: "Port 80 is used", panes.PortForbidden: "does not allow port 80"} {
		d.SetServing(panes.ServingState{Phase: panes.Failed, Port: 80, Failure: f})
		if v := d.Menu(); !strings.Contains(v.Line, want) || v.Tone != panes.Danger {
			t.Errorf("%+v", v)
		}
	}
	d.SetServing(panes.ServingState{Phase: panes.Running, Port: 1337})
	d.settled()
	v := d.Menu()
	if v.Line != "Running on port 1337" || v.URL != "http://127.0.0.1:1337" || v.Waiting || v.Running {
		t.Errorf("%+v", v)
	}
	labels := []string{}
	for _, i := range v.Items {
		labels = append(labels, i.Label+i.Shortcut)
	}
	if want := "Settings…,|Pairing requests (0)|Nearby agents|Expose to network|Relay|Stop|About Osaurus|Quit Osaurusq"; strings.Join(labels, "|") != want {
		t.Errorf("%v", labels)
	}
	d.do("expose")
	if d.sheet().Tone != panes.Danger {
		t.Error("exposing needs no confirmation")
	}
	d.do("confirm")
	d.do("expose") // back: no question
	if h.called("settings") != 2 || h.settings.Expose {
		t.Errorf("%v", h.calls)
	}
	d.do("relay-on:A1")
	d.do("confirm")
	d.do("host-stop")
	<-board.stopped
}

func TestWhyTheHostDidNotStart(t *testing.T) { // MB-5
	t.Parallel()
	h := startHost(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	h.engine.OverridePort(port)
	_, used := h.engine.Listen(t.Context())
	forbidden := &engine.PortError{Port: 80, Err: &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}}
	d := drive(t, h, panes.Env{Serving: switchboard{}})
	for want, err := range map[string]error{
		fmt.Sprintf("Port %d is used by another program.", port): used,
		"The system does not allow port 80.":                     fmt.Errorf("starting: %w", forbidden),
		"The port must be from 1 to 65535.":                      fmt.Errorf("config/server.json: %w", settings.Server{Port: 65536}.Validate()),
		"open keystore.osks: permission denied":                  &os.PathError{Op: "open", Path: "keystore.osks", Err: syscall.EACCES}, // no port
	} {
		d.SetServing(panes.FailedState(err))
		if v := d.Menu(); !strings.HasPrefix(v.Line, want) || v.Tone != panes.Danger {
			t.Errorf("%v: %+v, want %s", err, v, want)
		}
		if !slices.ContainsFunc(d.Menu().Items, func(i panes.Item) bool { return i.ID == "host-start" && i.Label == "Try again" && !i.Off }) {
			t.Errorf("%v: it cannot be tried again", err)
		}
	}
}

func TestNotices(t *testing.T) { // PA-7, notifications
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []panes.Notice
		h := newScripted()
		m := panes.New(h, panes.Env{Notify: func(n panes.Notice) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n)
		}})
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.Watch(t.Context())
		}()
		synctest.Wait()
		told := func(what string, want ...panes.NoticeKind) {
			t.Helper()
			m.Refresh()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			var kinds []panes.NoticeKind
			for _, n := range got {
				kinds = append(kinds, n.Kind)
				if n.Title == "" || n.Text == "" || n.Action == "" || n.Pane == "" || strings.Contains(n.Text, "{") {
					t.Errorf("%+v", n)
				}
				if n.Prompt != "" && (n.Action != "Review" || n.Deny != "Deny") {
					t.Errorf("%+v", n)
				}
			}
			slices.Sort(kinds)
			slices.Sort(want)
			if !slices.Equal(kinds, want) {
				t.Errorf("%s: %v, want %v", what, kinds, want)
			}
			got = nil
		}
		change := func(f func()) {
			h.mu.Lock()
			defer h.mu.Unlock()
			f()
		}
		told("at first")
		change(func() {
			h.keys = append(slices.Clone(h.keys), accesskey.Metadata{ID: "K2", Label: "new", Nonce: "n2", Audience: h.agents[0].Address, ExpiresAt: time.Now().Add(7 * 24 * time.Hour).Unix()})
		})
		told("a new key that ends soon", panes.KeyMinted, panes.KeyExpiring)
		told("the same again")
		change(func() {
			h.requests = []server.Entry{{Time: time.Now().Add(time.Second), KeyNonce: "n2", Audience: h.agents[0].Address}, {Time: time.Now().Add(2 * time.Second), KeyNonce: "n2", Audience: h.agents[0].Address}}
		})
		told("used twice", panes.AgentUsed)
		rex := h.agents[0].Address
		use := func(after time.Duration, nonce string, agent address.Address) {
			change(func() {
				h.requests = append(slices.Clone(h.requests), server.Entry{Time: time.Now().Add(after), KeyNonce: nonce, Audience: agent})
			})
		}
		ann := address.Address{19: 3}
		change(func() {
			h.agents = append(slices.Clone(h.agents), control.Agent{Agent: agents.Agent{ID: "A2", Name: "Ann", Address: ann}})
		})
		use(60*time.Second, "n2", ann)
		told("another agent within the minute")
		use(61*time.Second, "n2", ann)
		told("and after it", panes.AgentUsed)
		use(200*time.Second, "n2", rex)
		use(300*time.Second, "n2", ann)
		use(300*time.Second, "unknown", ann)
		told("the same agents again")
		served := func(state relay.State) {
			change(func() {
				h.relays.Agents = []engine.Relay{{Status: relay.Status{Agent: "A1", State: state}, Name: "Rex"}}
			})
		}
		served(relay.Connected)
		told("connected")
		served(relay.ServedElsewhere)
		told("superseded", panes.RelaySuperseded)
		told("still superseded")
		served(relay.Connected)
		told("back")
		served(relay.ServedElsewhere)
		told("superseded again", panes.RelaySuperseded)
		change(func() { h.keys = slices.Clone(h.keys); h.keys[1].Revoked = true })
		told("revoked", panes.KeyRevoked)
		change(func() { h.drift.StaleKeys = []string{"K1"} })
		told("drift", panes.DriftFound)
		change(func() { h.stores.Stores = []storage.StoreStatus{{ID: "memory", Issue: storage.IssueLocked}} })
		told("locked", panes.StoreLocked)
		h.approvals <- control.Approvals{Current: prompt("p1", time.Now())}
		told("asked", panes.PairingAsked)
		for reason, want := range map[string]panes.NoticeKind{"90d": panes.PairingApproved, "deny": panes.PairingDenied, "expired": panes.PairingExpired} {
			o := control.Approvals{Last: &pairing.Outcome{Prompt: *prompt("p1", time.Now()), Reason: "answered"}, Answer: reason}
			if reason == "expired" {
				o.Last.Reason, o.Answer = reason, "deny"
			}
			h.approvals <- o
			told(reason, want)
			h.approvals <- control.Approvals{Current: prompt("p1", time.Now())}
			told("asked again", panes.PairingAsked)
		}
		m.Close()
		<-done
	})
}
