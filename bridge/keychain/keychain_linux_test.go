package keychain

import (
	"errors"
	"fmt"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/keystore/keystoretest"
	"osaurus/engine/secret"
)

// The fake is one for the process, so these tests take turns.

func open(t *testing.T, scope string) *Store {
	t.Helper()
	s, err := Open(scope)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) {
	for name, entitled := range map[string]bool{"data protection": true, "login": false} {
		t.Run(name, func(t *testing.T) {
			if !entitled {
				fake(missingEntitlement, true)
				defer fake(ok, false)
			}
			n := 0
			keystoretest.Run(t, func(t *testing.T) (keystore.Store, func() keystore.Store) {
				n++
				scope := fmt.Sprint(name, n)
				again := func() keystore.Store { return open(t, scope) }
				s := open(t, scope)
				if said, why := s.Remark(); (said == "") != entitled || (why == "") != entitled {
					t.Errorf("entitled %v, it remarks %q", entitled, said)
				}
				return again(), again
			})
		})
	}
}

func TestScopes(t *testing.T) {
	app, other := open(t, ""), open(t, "other")
	if err := app.Put(t.Context(), "s", "a", secret.New([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Get(t.Context(), "s", "a"); !errors.Is(err, fault.KeyNotFound) {
		t.Errorf("another scope's item: %v", err)
	}
	if v, st := nativeGet("s", "a", protected); st != ok || string(v.Expose()) != "x" {
		t.Errorf("the app's item has no plain name: %d", st)
	}
}

func TestStatuses(t *testing.T) {
	s := open(t, "statuses")
	defer fake(ok, false)
	for st, want := range map[status]error{
		interactionNotAllowed: fault.KeystoreLocked, userCanceled: fault.KeystoreDenied, authFailed: fault.KeystoreDenied, decode: fault.KeystoreCorrupt,
		missingEntitlement: fault.KeystoreLocked, -1: fault.KeystoreLocked,
	} {
		fake(st, false)
		_, getErr := s.Get(t.Context(), "s", "a")
		_, listErr := s.List(t.Context(), "s")
		for what, err := range map[string]error{"Get": getErr, "List": listErr, "Put": s.Put(t.Context(), "s", "a", secret.Bytes{}), "Delete": s.Delete(t.Context(), "s", "a")} {
			if !errors.Is(err, want) {
				t.Errorf("%d at %s: %v", st, what, err)
			}
		}
		if _, err := Open("x"); !errors.Is(err, want) {
			t.Errorf("%d at Open: %v", st, err)
		}
	}
}

// TestMasterFallsBack: a master that cannot synchronise stays on the device.
func TestMasterFallsBack(t *testing.T) {
	s := open(t, "master")
	if how := s.how(masterService, masterAccount); how != protected|synced {
		t.Errorf("kept as %d", how)
	}
	if how := s.how(masterService, "device-key"); how != protected {
		t.Errorf("another item is kept as %d", how)
	}
	fake(-1, false)
	err := s.Put(t.Context(), masterService, masterAccount, secret.Bytes{})
	fake(ok, false)
	if how := s.how(masterService, masterAccount); err == nil || how != protected|presence {
		t.Errorf("kept as %d after %v", how, err)
	}
	if err := s.Put(t.Context(), masterService, masterAccount, secret.New([]byte("m"))); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), masterService, masterAccount); err != nil || string(v.Expose()) != "m" {
		t.Error(err)
	}
}

func TestZeroByteInName(t *testing.T) {
	s := open(t, "zero")
	if err := s.Put(t.Context(), "s\x00t", "a", secret.Bytes{}); !errors.Is(err, fault.Usage) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(t.Context(), "s", "a\x00"); !errors.Is(err, fault.Usage) {
		t.Errorf("get: %v", err)
	}
}
