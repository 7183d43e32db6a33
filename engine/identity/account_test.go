package identity

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
)

func TestGenerateThenReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := &events{}
	c := w.config()
	c.Log = log.log
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a.Status(t.Context()); err != nil || s.State != None || !s.Address.IsZero() {
		t.Fatalf("before: %+v, %v", s, err)
	}
	made, err := a.Generate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParsePhrase(made.Phrase)
	if err != nil || m.Address() != made.Address || !strings.HasPrefix(string(made.RecoveryCode.Expose()), "OSAURUS-") {
		t.Fatalf("the phrase shown is not the master's: %v", err)
	}
	for name, open := range map[string]*Account{"same": a, "reopened": w.open(t)} {
		s, err := open.Status(t.Context())
		if err != nil || s.State != Ready || s.Address != made.Address || s.Acknowledged || !s.Created.Equal(epoch) || s.Replaced {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		if open.Address() != made.Address {
			t.Errorf("%s: address %s", name, open.Address())
		}
	}
	if got := len(w.vault.items[VaultAccount]); got != 32 {
		t.Errorf("the keystore holds %d bytes, want the raw 32", got)
	}
	if !slices.Equal(log.names, []string{"identity_created"}) {
		t.Errorf("logged %v", log.names)
	}
}

func TestGenerateDrawsAgainUntilAScalarIsValid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.rand.queue = slices.Concat(make([]byte, 32), unhex(t, strings.Repeat("ff", 32)), unhex(t, aliceHex))
	made, err := a.Generate(t.Context())
	if err != nil || made.Address.String() != aliceAddress {
		t.Fatalf("got %s, %v", made.Address, err)
	}
}

func TestGenerateNeverReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	if _, err := w.open(t).Generate(t.Context()); !errors.Is(err, fault.MasterExists) {
		t.Errorf("got %v", err)
	}
	if !w.vault.holds(VaultAccount, aliceHex) {
		t.Error("the master is gone")
	}
}

// Neither a locked keystore, nor one that fails, nor a record without a key is
// "no identity".
func TestGenerateFailsClosed(t *testing.T) {
	t.Parallel()
	broken := errors.New("input/output error")
	for _, call := range []string{"list", "get"} {
		for _, cause := range []error{fault.KeystoreLocked, fault.KeystoreDenied, fault.KeystoreCorrupt, broken} {
			w := newWorld(t)
			a := w.open(t)
			w.vault.fail = func(c string) error {
				if c == call {
					return cause
				}
				return nil
			}
			if _, err := a.Generate(t.Context()); !errors.Is(err, cause) {
				t.Errorf("%s fails with %v: got %v", call, cause, err)
			}
			if len(w.vault.items) != 0 {
				t.Errorf("%s fails with %v: a master was written", call, cause)
			}
			if s, err := a.Status(t.Context()); call == "list" && (err != nil || s.State != Locked || !errors.Is(s.Err, cause)) {
				t.Errorf("status with %v: %+v, %v", cause, s, err)
			}
		}
	}
}

func TestAMissingKeyIsNotNoIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	delete(w.vault.items, VaultAccount)
	a := w.open(t)
	if s, err := a.Status(t.Context()); err != nil || s.State != Missing || s.Address.String() != aliceAddress {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := a.Generate(t.Context()); !errors.Is(err, fault.MasterExists) {
		t.Errorf("generate: %v", err)
	}
	if _, err := a.Unlock(t.Context(), "test"); !errors.Is(err, fault.NoMaster) {
		t.Errorf("unlock: %v", err)
	}
	if got, err := a.Restore(t.Context(), text(alicePhrase), nil, false); err != nil || got.String() != aliceAddress {
		t.Errorf("restore: %v", err)
	}
}

func TestStatusShowsTheAddressWhileLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	w.vault.fail = func(string) error { return fault.KeystoreLocked }
	a := w.open(t)
	if s, err := a.Status(t.Context()); err != nil || s.State != Locked || s.Address.String() != aliceAddress {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := a.Unlock(t.Context(), "test"); !errors.Is(err, fault.KeystoreLocked) {
		t.Errorf("unlock: %v", err)
	}
}

func TestUnlockRefusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{"", "00", strings.Repeat("00", 32), strings.Repeat("ff", 32), aliceHex + "00"} {
		w := newWorld(t)
		w.vault.items[VaultAccount] = unhex(t, stored)
		if _, err := w.open(t).Unlock(t.Context(), "test"); !errors.Is(err, fault.KeystoreCorrupt) {
			t.Errorf("%q: %v", stored, err)
		}
	}
}

func TestPhraseShowsUntilAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	a := w.open(t)
	if p, err := a.Phrase(t.Context()); err != nil || string(p.Expose()) != alicePhrase {
		t.Fatalf("before: %v", err)
	}
	if err := a.Acknowledge(t.Context()); err != nil {
		t.Fatal(err)
	}
	a = w.open(t)
	if s, _ := a.Status(t.Context()); !s.Acknowledged {
		t.Error("the acknowledgement did not survive")
	}
	if p, err := a.Phrase(t.Context()); err == nil || !p.IsZero() {
		t.Error("an acknowledged phrase is shown again")
	}
}

func TestAcknowledgeNeedsAnIdentity(t *testing.T) {
	t.Parallel()
	if err := newWorld(t).open(t).Acknowledge(t.Context()); !errors.Is(err, fault.NoMaster) {
		t.Errorf("got %v", err)
	}
}

func TestADamagedRecordIsReportedAndCanBeRebuilt(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{", `{"version":2,"address":"` + aliceAddress + `"}`, `{"version":1}`, `{"version":1,"version":1,"address":"` + aliceAddress + `"}`, "null", "[]"} {
		w := newWorld(t).with(t, aliceHex)
		path := filepath.Join(w.dir, "account.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		a := w.open(t)
		if _, err := a.Status(t.Context()); !errors.Is(err, fault.StateCorrupt) {
			t.Errorf("%q: status %v", content, err)
		}
		if !a.Address().IsZero() {
			t.Errorf("%q: an address came out of a damaged record", content)
		}
		if _, err := a.Generate(t.Context()); err == nil {
			t.Errorf("%q: a master was created", content)
		}
		if after, _ := os.ReadFile(path); string(after) != content {
			t.Errorf("%q: the damaged file was overwritten", content)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		m, err := a.Unlock(t.Context(), "test")
		if err != nil || a.Address() != m.Address() {
			t.Errorf("rebuilding: %v", err)
		}
	}
}

// asked counts prompts and answers them with err.
type asked struct {
	reasons []string
	err     error
}

func (p *asked) Confirm(_ context.Context, reason string) error {
	p.reasons = append(p.reasons, reason)
	return p.err
}

func TestOneConfirmationServesFor300Seconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	p := &asked{}
	c := w.config()
	c.Presence = p
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	start := w.now
	for _, step := range []struct {
		after time.Duration
		lock  bool
		want  int
	}{
		{0, false, 1},
		{time.Second, false, 1},
		{PresenceReuse - time.Nanosecond, false, 1},
		{PresenceReuse, false, 2},
		{PresenceReuse + PresenceReuse - 1, false, 2},
		{PresenceReuse - time.Second, false, 3}, // the clock ran backwards
		{PresenceReuse, true, 4},
	} {
		w.now = start.Add(step.after)
		if step.lock {
			a.Lock()
		}
		m, err := a.Unlock(t.Context(), "why")
		if err != nil {
			t.Fatal(err)
		}
		m.Destroy()
		if len(p.reasons) != step.want {
			t.Errorf("after %s: %d prompts, want %d", step.after, len(p.reasons), step.want)
		}
	}
	if p.reasons[0] != "why" {
		t.Errorf("asked %q", p.reasons[0])
	}
}

func TestARefusedConfirmationReadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	p := &asked{err: errors.New("cancelled by the user")}
	c := w.config()
	c.Presence = p
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	w.vault.fail = func(call string) error {
		if call == "get" || call == "put" || call == "delete" {
			t.Errorf("the keystore saw a %s", call)
		}
		return nil
	}
	_, unlock := a.Unlock(t.Context(), "x")
	_, restore := a.Restore(t.Context(), text(alicePhrase), nil, false)
	_, phrase := a.Phrase(t.Context())
	for name, err := range map[string]error{"unlock": unlock, "restore": restore, "phrase": phrase, "confirm": a.Confirm(t.Context(), "x"), "reset": a.Reset(t.Context()), "confirm replacement": a.ConfirmReplacement(t.Context())} {
		if !errors.Is(err, fault.KeystoreDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := a.Status(t.Context()); err != nil || s.State != Ready {
		t.Errorf("status asks nobody: %+v, %v", s, err)
	}
}

// Status never waits behind a prompt.
func TestStatusDoesNotWaitForTheOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	c := w.config()
	entered, release := make(chan struct{}), make(chan struct{})
	c.Presence = presenceFunc(func(context.Context, string) error {
		close(entered)
		<-release
		return nil
	})
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		m, err := a.Unlock(context.Background(), "slow owner")
		m.Destroy()
		done <- err
	}()
	<-entered
	if s, err := a.Status(t.Context()); err != nil || s.State != Ready {
		t.Errorf("%+v, %v", s, err)
	}
	if a.Address().IsZero() || a.Device().ID == "" {
		t.Error("address and device wait")
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type presenceFunc func(context.Context, string) error

func (f presenceFunc) Confirm(ctx context.Context, reason string) error { return f(ctx, reason) }
