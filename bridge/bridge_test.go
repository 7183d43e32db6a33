package bridge

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"osaurus/engine/discovery"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// vault is a keystore of the system that can go away.
type vault struct {
	away  error
	homes map[string]keystore.Store
}

func (v *vault) system() *systemStore {
	return &systemStore{name: "vault", what: "a vault", available: func(context.Context) error { return v.away }, open: func(_ context.Context, id string) (keystore.Store, error) {
		if v.away != nil {
			return nil, v.away
		}
		if v.homes == nil {
			v.homes = map[string]keystore.Store{}
		}
		if v.homes[id] == nil {
			v.homes[id] = keystore.NewMemory()
		}
		return v.homes[id], nil
	}}
}

var errAway = fault.New(fault.KeystoreLocked, errors.New("nobody is logged in"))

func exists(t *testing.T, home, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(home, name))
	return err == nil
}

func TestNewHomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		v          *vault // nil: the system has none
		passphrase string
		system     bool
	}{
		"a vault":                  {&vault{}, "", true},
		"none":                     {nil, "", false},
		"a locked vault":           {&vault{away: errAway}, "", false},
		"a vault and a passphrase": {&vault{}, "sealed by me", false},
	} {
		home := t.TempDir()
		var sys *systemStore
		if c.v != nil {
			sys = c.v.system()
		}
		s, err := openStore(t.Context(), sys, home, secret.New([]byte(c.passphrase)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if exists(t, home, KeystoreMarker) != c.system || exists(t, home, KeystoreFile) == c.system {
			t.Errorf("%s: it went to the wrong place", name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNoSilentSwitch: a home keeps its keystore, and what cannot be opened is
// an error that says which it is.
func TestNoSilentSwitch(t *testing.T) {
	t.Parallel()
	ctx, none := t.Context(), secret.Bytes{}
	v := &vault{}
	inVault, inFile := t.TempDir(), t.TempDir()
	for home, sys := range map[string]*systemStore{inVault: v.system(), inFile: nil} {
		s, err := openStore(ctx, sys, home, none)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, "s", "a", secret.New([]byte(home))); err != nil {
			t.Fatal(err)
		}
		if sys == nil { // the vault's lives on
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, home := range []string{inVault, inFile} {
		s, err := openStore(ctx, v.system(), home, none)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(ctx, "s", "a"); err != nil || string(got.Expose()) != home {
			t.Errorf("opened again: %v", err)
		}
	}
	for what, sys := range map[string]*systemStore{"locked": (&vault{away: errAway}).system(), "another system": nil, "another keystore": {name: "other"}} {
		_, err := openStore(ctx, sys, inVault, secret.New([]byte("a passphrase changes nothing")))
		if !errors.Is(err, fault.KeystoreLocked) || !strings.Contains(err.Error(), "secrets of this home are in") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if exists(t, inVault, KeystoreFile) {
		t.Error("a sealed file was made beside the system's keystore")
	}
}

// TestHomesApart: each home has an id of its own in the system's keystore.
func TestHomesApart(t *testing.T) {
	t.Parallel()
	v := &vault{}
	for range 3 {
		if _, err := openStore(t.Context(), v.system(), t.TempDir(), secret.Bytes{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.homes) != 3 {
		t.Errorf("three homes have %d places", len(v.homes))
	}
	sys, own := v.system(), t.TempDir()
	sys.plain = func(home string) bool { return home == own }
	for _, home := range []string{own, t.TempDir()} {
		if _, err := openStore(t.Context(), sys, home, secret.Bytes{}); err != nil {
			t.Fatal(err)
		}
	}
	if v.homes[uuid.Nil.String()] == nil || len(v.homes) != 5 {
		t.Errorf("the person's own home has no plain names: %d places", len(v.homes))
	}
}

func TestDamagedMarkers(t *testing.T) {
	t.Parallel()
	const good = `{"v":1,"store":"vault","id":"00000000-0000-4000-8000-000000000001"}`
	for what, content := range map[string]string{
		"empty": "", "no JSON": "vault", "another version": strings.Replace(good, "1", "2", 1), "no id": `{"v":1,"store":"vault"}`,
		"no store": strings.Replace(good, "vault", "", 1), "an id of another form": `{"v":1,"store":"vault","id":"../x"}`,
	} {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, KeystoreMarker), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openStore(t.Context(), (&vault{}).system(), home, secret.Bytes{}); !errors.Is(err, fault.KeystoreCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if exists(t, home, KeystoreFile) {
			t.Errorf("%s: a new keystore was made", what)
		}
	}
	home := t.TempDir()
	for name, content := range map[string]string{KeystoreMarker: good, KeystoreFile: "x"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openStore(t.Context(), (&vault{}).system(), home, secret.Bytes{}); !errors.Is(err, fault.KeystoreCorrupt) {
		t.Errorf("both at once: %v", err)
	}
}

// station is a discoverer that notes what it is asked.
type station struct{ published, closed, browsed int }

func (s *station) Publish(context.Context, []discovery.Instance) error { s.published++; return nil }
func (s *station) Close() error                                        { s.closed++; return nil }
func (s *station) Browse(context.Context, func(discovery.Event)) error {
	s.browsed++
	return nil
}

// TestResponderChoice: the choice is made when something is published and
// holds until nothing is.
func TestResponderChoice(t *testing.T) {
	t.Parallel()
	var system, embedded station
	var answer error
	n := &network{available: func() error { return answer }, system: &system, embedded: &embedded}
	publish := func(want ...discovery.Instance) {
		if err := n.Publish(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	one := discovery.Instance{Name: "Ada"}
	publish()
	publish(one)
	answer = errors.New("gone")
	publish(one)
	publish() // ends the choice
	publish(one)
	if err := errors.Join(n.Browse(t.Context(), nil), n.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	if system != (station{2, 1, 0}) || embedded != (station{1, 1, 1}) {
		t.Errorf("the system's did %+v, the embedded one %+v", system, embedded)
	}
}

func TestPortable(t *testing.T) {
	t.Parallel()
	p, home := Portable(), t.TempDir()
	s, err := p.Keystore(home, secret.Bytes{})
	if err != nil || s.Strength() != keystore.Unwrapped || !exists(t, home, KeystoreFile) {
		t.Errorf("%v", err)
	}
	if p.Advertiser == nil || p.Browser == nil || p.DeviceName == "" {
		t.Error("a port is missing")
	}
}
