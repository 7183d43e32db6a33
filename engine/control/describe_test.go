package control

import (
	"errors"
	"testing"

	"osaurus/engine/fault"
)

// TestEveryErrorHasAName: also those that have only a text on the wire.
func TestEveryErrorHasAName(t *testing.T) {
	t.Parallel()
	for code := fault.Code(1); code < 512; code++ {
		if code.Text() == "" {
			continue
		}
		for _, err := range []error{code, fault.New(code, errors.New("a cause"))} {
			if e := describe(err); e.Code == "" || e.Exit == 0 {
				t.Errorf("%v: %+v", err, e)
			}
		}
	}
	for err, want := range map[error]string{
		fault.HostIdentityUnavailable: "identity_unavailable", fault.UnknownAgentAddress: "unknown_agent_address", fault.KeystoreLocked: "keystore_locked",
		fault.AccessRevoked: "failed", errors.New("x"): "failed",
	} {
		if e := describe(err); e.Code != want {
			t.Errorf("%v is named %q, not %q", err, e.Code, want)
		}
	}
}
