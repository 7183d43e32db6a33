package control

import (
	"bufio"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/discovery"
	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/pairing"
	"osaurus/engine/runner"
	"osaurus/engine/sandbox"
	"osaurus/engine/secret"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/signature"
	"osaurus/engine/storage"
	"osaurus/engine/storage/memory"
)

func newReader(s string) *bufio.Reader      { return bufioReader(strings.NewReader(s)) }
func bufioReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// shown are the types that go over a wire, into a log or to the owner.
var shown = []any{
	Identity{}, NewIdentity{}, Drift{}, Repaired{}, Agent{}, NewKey{}, RequestToken{}, Approvals{}, RunEvent{}, Provider{}, LogHead{}, Error{},
	engine.Status{}, accesskey.Metadata{}, accesskey.Access{}, accesskey.Trusted{}, agents.Agent{}, discovery.Event{}, eventlog.Head{}, eventlog.Problem{},
	StorageEvent{}, Chat{}, memory.Fact{}, memory.Found{}, storage.Status{}, storage.Quarantined{}, storage.Rotation{},
	fault.Error{}, fault.Reply{}, identity.Status{}, identity.Drift{}, identity.RequestClaims{}, pairing.Peer{}, pairing.Invite{}, pairing.IssuedInvite{}, pairing.OwnerDevice{}, Invite{}, Forgotten{}, pairing.Prompt{}, pairing.Outcome{},
	sandbox.Choices{}, sandbox.Chosen{}, sandbox.Status{}, sandbox.Check{}, sandbox.AutonomousExec{},
	runner.Task{}, runner.Model{}, server.Entry{}, settings.Server{}, settings.Provider{},
}

// allowed are the fields that carry what their names say, with the reason.
var allowed = map[string]string{
	"control.NewIdentity.Phrase":       "shown once to the owner's own terminal",
	"control.NewIdentity.RecoveryCode": "shown once to the owner's own terminal",
	"control.NewKey.Token":             "shown once to the owner, who hands it on",
	"control.RequestToken.Token":       "what was asked for; it lives a minute and serves once",
	"control.Provider.Key":             "only in a request",
	"storage.Status.Key":               "the id and state of the key",
}

var (
	smells      = regexp.MustCompile(`(?i)^(.*(phrase|passphrase|mnemonic|secret|private|password|recoverycode|signature|assertion|attestation)|(.*[a-z])?token|bearer|authorization|key|apikey|seed)$`)
	harmless    = []reflect.Kind{reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64}
	secretTypes = []reflect.Type{reflect.TypeFor[secret.Bytes](), reflect.TypeFor[signature.Key](), reflect.TypeFor[identity.MasterKey](), reflect.TypeFor[identity.AgentKey](), reflect.TypeFor[identity.PairingKey]()}
)

// exposed walks a type and returns what should not be reachable in it.
func exposed(t reflect.Type, path string, seen map[reflect.Type]bool) (found []string) {
	if slices.Contains(secretTypes, t) {
		return []string{path + " is a " + t.String()}
	}
	if seen[t] {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return exposed(t.Elem(), path, seen)
	case reflect.Map:
		return append(exposed(t.Key(), path, seen), exposed(t.Elem(), path, seen)...)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name := t.String() + "." + f.Name
			if f.IsExported() && smells.MatchString(f.Name) && !slices.Contains(harmless, f.Type.Kind()) && allowed[name] == "" {
				found = append(found, name+" smells of a secret")
			}
			found = append(found, exposed(f.Type, name, seen)...)
		}
	}
	return found
}

func TestNothingSecretIsReachable(t *testing.T) {
	t.Parallel()
	for _, v := range shown {
		typ := reflect.TypeOf(v)
		for _, problem := range exposed(typ, typ.String(), map[reflect.Type]bool{}) {
			t.Errorf("%s: %s", typ, problem)
		}
	}
}

// TestExposureCanFail plants what must be found.
func TestExposureCanFail(t *testing.T) {
	t.Parallel()
	type inner struct{ held identity.MasterKey }
	for name, v := range map[string]any{
		"secret":     struct{ S secret.Bytes }{},
		"unexported": struct{ s inner }{inner{held: identity.MasterKey{}}},
		"deep":       struct{ M map[string][]*inner }{},
		"by name":    struct{ APIKey string }{},
		"phrase":     struct{ Phrase []byte }{},
		"token":      struct{ AccessToken string }{},
		"a key":      signature.Key{},
	} {
		if len(exposed(reflect.TypeOf(v), name, map[reflect.Type]bool{})) == 0 {
			t.Errorf("%s was not found", name)
		}
	}
}
