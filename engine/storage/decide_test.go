package storage

import (
	"errors"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

// TestOpeningTable walks the rows of storage.md section 12 and decisions D5.
func TestOpeningTable(t *testing.T) {
	t.Parallel()
	const enc, pln = PostureEncrypted, PosturePlaintext
	type s = situation
	for name, c := range map[string]struct {
		in   s
		want action
		kind IssueKind
	}{
		"fresh":                                {s{posture: enc, key: KeyFresh, format: sqlcipher.Missing, trusted: true}, create, ""},
		"fresh, plaintext":                     {s{posture: pln, key: KeyFresh, format: sqlcipher.Missing, trusted: true}, create, ""},
		"new store, key there":                 {s{posture: enc, key: KeyReady, format: sqlcipher.Empty, trusted: true}, create, ""},
		"new store, key locked":                {s{posture: enc, key: KeyLocked, format: sqlcipher.Missing}, refuse, IssueLocked},
		"new store, key missing":               {s{posture: enc, key: KeyMissing, format: sqlcipher.Missing}, refuse, IssueLocked},
		"new plaintext store, key missing":     {s{posture: pln, key: KeyMissing, format: sqlcipher.Missing}, create, ""},
		"gone":                                 {s{posture: enc, key: KeyReady, format: sqlcipher.Missing, recorded: true, sealed: true}, refuse, IssueMissing},
		"emptied":                              {s{posture: enc, key: KeyReady, format: sqlcipher.Empty, recorded: true, sealed: true}, refuse, IssueMissing},
		"gone, plaintext":                      {s{posture: pln, key: KeyReady, format: sqlcipher.Missing, recorded: true}, refuse, IssueMissing},
		"never there, but its log":             {s{posture: enc, key: KeyReady, format: sqlcipher.Missing, beside: true, trusted: true}, refuse, IssueMissing},
		"older host's":                         {s{posture: enc, key: KeyFresh, format: sqlcipher.Plaintext, trusted: true}, encryptThen, ""},
		"restored beside a key":                {s{posture: enc, key: KeyReady, format: sqlcipher.Plaintext, trusted: true}, encryptThen, ""},
		"on record as plaintext":               {s{posture: enc, key: KeyReady, format: sqlcipher.Plaintext, recorded: true, trusted: true}, encryptThen, ""},
		"on a record that nothing proves":      {s{posture: enc, key: KeyReady, format: sqlcipher.Plaintext, recorded: true}, refuse, IssueUnexpectedPlaintext},
		"on record, key missing":               {s{posture: enc, key: KeyMissing, format: sqlcipher.Plaintext, recorded: true}, openPlain, ""},
		"plaintext, manifest lost":             {s{posture: enc, key: KeyReady, format: sqlcipher.Plaintext}, refuse, IssueUnexpectedPlaintext},
		"plaintext swapped in":                 {s{posture: enc, key: KeyReady, format: sqlcipher.Plaintext, recorded: true, sealed: true, trusted: true}, refuse, IssueUnexpectedPlaintext},
		"plaintext swapped in, plaintext wish": {s{posture: pln, key: KeyReady, format: sqlcipher.Plaintext, recorded: true, sealed: true, trusted: true}, refuse, IssueUnexpectedPlaintext},
		"plaintext swapped in, key locked":     {s{posture: enc, key: KeyLocked, format: sqlcipher.Plaintext, recorded: true, sealed: true}, refuse, IssueUnexpectedPlaintext},
		"plaintext as wished":                  {s{posture: pln, key: KeyMissing, format: sqlcipher.Plaintext}, openPlain, ""},
		"plaintext, key locked":                {s{posture: enc, key: KeyLocked, format: sqlcipher.Plaintext, trusted: true}, openPlain, ""},
		"encrypted":                            {s{posture: enc, key: KeyReady, format: sqlcipher.Encrypted, recorded: true, sealed: true, rowKey: rowKeyCurrent}, openEncrypted, ""},
		"encrypted, unrecorded":                {s{posture: enc, key: KeyReady, format: sqlcipher.Encrypted}, openEncrypted, ""},
		"encrypted though plaintext is wished": {s{posture: pln, key: KeyReady, format: sqlcipher.Encrypted, recorded: true, sealed: true, rowKey: rowKeyCurrent}, openEncrypted, ""},
		"encrypted, key locked":                {s{posture: enc, key: KeyLocked, format: sqlcipher.Encrypted, recorded: true, sealed: true}, refuse, IssueLocked},
		"encrypted, key missing":               {s{posture: pln, key: KeyMissing, format: sqlcipher.Encrypted}, refuse, IssueLocked},
		"encrypted with an older key":          {s{posture: enc, key: KeyReady, format: sqlcipher.Encrypted, recorded: true, sealed: true, rowKey: rowKeyOther}, rekeyThen, ""},
		"encrypted with a key nobody has":      {s{posture: enc, key: KeyReady, format: sqlcipher.Encrypted, recorded: true, sealed: true, rowKey: rowKeyUnknown}, refuse, IssueLocked},
		"odd size, tried once":                 {s{posture: enc, key: KeyReady, format: sqlcipher.Foreign, recorded: true, sealed: true, rowKey: rowKeyOther}, openEncrypted, ""},
		"odd size, key locked":                 {s{posture: enc, key: KeyLocked, format: sqlcipher.Foreign}, refuse, IssueLocked},
		"a link":                               {s{posture: enc, key: KeyReady, unsafe: true}, refuse, IssueUnsafePath},
		"no format":                            {s{posture: enc, key: KeyReady}, refuse, IssueUnknown},
	} {
		if got, kind := decide(c.in); got != c.want || kind != c.kind {
			t.Errorf("%s: %d %q, want %d %q", name, got, kind, c.want, c.kind)
		}
	}
}

// TestNothingIsEverDecrypted: no situation leads from an encrypted file to a
// plaintext one, and none creates anything over a file that has content.
func TestNothingIsEverDecrypted(t *testing.T) {
	t.Parallel()
	n := 0
	for _, posture := range []Posture{PostureEncrypted, PosturePlaintext} {
		for _, key := range []KeyState{KeyReady, KeyFresh, KeyLocked, KeyMissing} {
			for _, format := range []sqlcipher.Format{sqlcipher.Missing, sqlcipher.Empty, sqlcipher.Plaintext, sqlcipher.Encrypted, sqlcipher.Foreign} {
				for bits := range 32 {
					for row := rowKeyNone; row <= rowKeyUnknown; row++ {
						s := situation{posture: posture, key: key, format: format, unsafe: bits&1 > 0, beside: bits&2 > 0, recorded: bits&4 > 0, sealed: bits&8 > 0, trusted: bits&16 > 0, rowKey: row}
						got, kind := decide(s)
						n++
						empty := format == sqlcipher.Missing || format == sqlcipher.Empty
						switch {
						case (got == refuse) != (kind != ""):
							t.Fatalf("%+v: action %d with kind %q", s, got, kind)
						case got == create && (!empty || s.recorded):
							t.Fatalf("%+v: created over something", s)
						case got == openPlain && format != sqlcipher.Plaintext, (got == encryptThen) && format != sqlcipher.Plaintext:
							t.Fatalf("%+v: taken for plaintext", s)
						case (got == openEncrypted || got == rekeyThen) && key != KeyReady:
							t.Fatalf("%+v: opened without a key", s)
						}
					}
				}
			}
		}
	}
	if n != 2*4*5*32*4 {
		t.Errorf("%d situations", n)
	}
}

func TestIssueCodes(t *testing.T) {
	t.Parallel()
	for kind, want := range map[IssueKind]fault.Code{IssueLocked: fault.StorageLocked, IssueCorrupt: fault.StoreDamaged, IssueMissing: fault.StoreMissing,
		IssueUnexpectedPlaintext: fault.StorePlaintext, IssueUnsafePath: fault.StoreUnsafePath, IssueForwardVersion: fault.StoreForwardVersion, IssueMigration: fault.Internal, IssueUnknown: fault.Internal} {
		if got := kind.code(); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"com.acme.weather": "Tools/com.acme.weather/data/data.db", "a": "Tools/a/data/data.db"} {
		id, err := Plugin(in)
		if err != nil || id.path() != want {
			t.Errorf("%s: %s, %v", in, id.path(), err)
		}
	}
	agent, err := Agent("0f8fad5b-d9cb-469f-a165-70867728950e")
	if err != nil || agent != "agent:0F8FAD5B-D9CB-469F-A165-70867728950E" || agent.path() != "agents/0F8FAD5B-D9CB-469F-A165-70867728950E/db.sqlite" {
		t.Errorf("%s, %v", agent, err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "../x", ".hidden", "a b", "x\x00", string(make([]byte, 200))} {
		_, pluginErr := Plugin(bad)
		_, agentErr := Agent(bad)
		if !errors.Is(pluginErr, fault.Usage) || !errors.Is(agentErr, fault.Usage) {
			t.Errorf("%q is a name", bad)
		}
	}
	for _, id := range []ID{"", "plugin:../x", "agent:x", "other"} {
		if id.path() != "" {
			t.Errorf("%q has the path %s", id, id.path())
		}
	}
}
