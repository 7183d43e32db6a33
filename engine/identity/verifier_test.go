package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

const getModels = "GET /v1/models"

func tokenOf(t testing.TB, device string, counter uint64, asserted bool) string {
	t.Helper()
	payload := fmt.Sprintf(`{"act":"GET /v1/models","aud":"host.local","cnt":%d,"dev":"%s","exp":1800000060,"iat":1800000000,"iss":"%s"}`, counter, device, aliceAddress)
	var assertion []byte
	if asserted {
		sum := sha256.Sum256([]byte(payload))
		assertion = append([]byte("assertion of "), sum[:]...)
	}
	return forge(t, master(t, aliceHex), requestHeader, payload, assertion)
}

func TestEachCounterServesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, step := range []struct {
		device   string
		counter  uint64
		asserted bool
		want     Step // invalidStep means accepted
	}{
		{"a1b2c3d4", 5, false, invalidStep},
		{"a1b2c3d4", 5, false, StepCounter},
		{"a1b2c3d4", 4, false, StepCounter},
		{"a1b2c3d4", 0, false, StepCounter},
		{"00000001", 5, false, invalidStep}, // another device counts for itself
		{"a1b2c3d4", 6, true, invalidStep},
		{"a1b2c3d4", 7, false, StepAssertion}, // once asserted, always asserted
		{"a1b2c3d4", 7, true, invalidStep},
		{"00000001", 6, false, invalidStep},
		{"00000002", 0, false, invalidStep}, // the first may be zero
		{"00000002", 0, false, StepCounter},
	} {
		v := newVerifier(t, dir, 1_800_000_000) // reopened each time
		_, err := v.Verify(t.Context(), tokenOf(t, step.device, step.counter, step.asserted), getModels)
		if (err == nil) != (step.want == invalidStep) || stepOf(err) != step.want {
			t.Errorf("%s %d asserted=%v: got %s (%v), want %s", step.device, step.counter, step.asserted, stepOf(err), err, step.want)
		}
	}
}

func TestAssertionsNeedAVerifier(t *testing.T) {
	t.Parallel()
	c := verifierConfig(t, t.TempDir(), 1_800_000_000)
	c.Assertions = nil
	v, err := OpenRequestVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), tokenOf(t, "a1b2c3d4", 1, true), getModels); stepOf(err) != StepAssertion {
		t.Errorf("got %v", err)
	}
	if _, err := v.Verify(t.Context(), tokenOf(t, "a1b2c3d4", 1, false), getModels); err != nil {
		t.Errorf("a software device: %v", err)
	}
}

func TestNoMasterNoToken(t *testing.T) {
	t.Parallel()
	c := verifierConfig(t, t.TempDir(), 1_800_000_000)
	c.Master = func() (none address.Address) { return none }
	v, err := OpenRequestVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), tokenOf(t, "a1b2c3d4", 1, false), getModels); stepOf(err) != StepIssuer {
		t.Errorf("got %v", err)
	}
}

func TestDamagedCountersStopTheVerifier(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{}", `{"version":2,"devices":{}}`, `{"version":1}`, `{"version":1,"devices":{"a1b2c3d4":{"cnt":-1}}}`} {
		c := verifierConfig(t, t.TempDir(), 1_800_000_000)
		if err := os.WriteFile(c.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRequestVerifier(c); !errors.Is(err, fault.StateCorrupt) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestSeenDevicesAreBounded(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, t.TempDir(), 1_800_000_000)
	for i := range maxSeenDevices - 1 {
		v.seen.Devices[fmt.Sprintf("%08x", i)] = seenDevice{Counter: 1}
	}
	for _, step := range []struct {
		device string
		want   Step
	}{{"fffffffe", invalidStep}, {"ffffffff", StepStore}, {"00000000", invalidStep}} {
		if _, err := v.Verify(t.Context(), tokenOf(t, step.device, 2, false), getModels); stepOf(err) != step.want {
			t.Errorf("%s: %v, want %s", step.device, err, step.want)
		}
	}
	if again := newVerifier(t, strings.TrimSuffix(v.c.Path, "/request-devices.json"), 1_800_000_000); len(again.seen.Devices) != maxSeenDevices {
		t.Errorf("%d devices were written", len(again.seen.Devices))
	}
}

// However often and wherever a verifier dies, one token passes at most once;
// and what was refused because it could not be written may be sent again.
func TestCrashWhileVerifying(t *testing.T) {
	t.Parallel()
	token := tokenOf(t, "a1b2c3d4", 1, false)
	for _, after := range []bool{false, true} {
		dir := t.TempDir()
		v := newVerifier(t, dir, 1_800_000_000)
		v.files = mortalFiles{&killer{at: 1, after: after}}
		if _, err := v.Verify(t.Context(), token, getModels); stepOf(err) != StepStore || !errors.Is(err, errKilled) {
			t.Errorf("got %v", err)
		}
		_, err := newVerifier(t, dir, 1_800_000_000).Verify(t.Context(), token, getModels)
		if after != (stepOf(err) == StepCounter) || !after && err != nil {
			t.Errorf("reopened (after: %v): %v", after, err)
		}
	}
}

func TestConcurrentReplay(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, t.TempDir(), 1_800_000_000)
	token := tokenOf(t, "a1b2c3d4", 1, false)
	var accepted atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := v.Verify(context.Background(), token, getModels); err == nil {
				accepted.Add(1)
			}
		})
	}
	wg.Wait()
	if accepted.Load() != 1 {
		t.Errorf("accepted %d times", accepted.Load())
	}
}

func TestStepsHaveNames(t *testing.T) {
	t.Parallel()
	for s := range stepCount {
		if s.String() == "" {
			t.Errorf("step %d has no name", s)
		}
	}
	if Step(200).String() != "invalid" || State(200).String() != "invalid" {
		t.Error("beyond the last")
	}
}
