package storage

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sqlcipher"
)

// TestManifestRebuilt: a manifest that is gone, garbled or changed is written
// anew at the next start, told once, from what opens with the key; what it
// cannot prove stays refused.
func TestManifestRebuilt(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*testing.T, string){
		"gone":    func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"garbled": func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("{garbage"), 0o600)) },
		"MAC": func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			must(t, err)
			i := strings.Index(string(text), `"mac":"`) + len(`"mac":"`)
			text[i] ^= 1
			must(t, os.WriteFile(path, text, 0o600))
		},
		"rows": func(t *testing.T, path string) {
			var m manifest
			text, err := os.ReadFile(path)
			must(t, err)
			must(t, json.Unmarshal(text, &m))
			r := m.Stores[Memory]
			r.Format, r.KeyID, r.State = PosturePlaintext, dek.ID{}, rowLost
			m.Stores[Memory], m.Stores["nonsense"] = r, r
			text, err = json.Marshal(m)
			must(t, err)
			must(t, os.WriteFile(path, text, 0o600))
		},
	} {
		w := newWorld(t)
		want := filled(w)
		path := filepath.Join(w.root, manifestFile)
		damage(t, path)
		s := w.open()
		for range 2 {
			if m, err := readManifest(path, s.keys); err != nil || len(m.Stores) != 5 || m.Stores[Memory].KeyID != s.keys[0].ID() || m.Stores[Memory].State != rowReady {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
			if n := strings.Count(w.logs.String(), "storage.manifest_rebuilt"); n != 1 {
				t.Errorf("%s: told %d times", name, n)
			}
			must(t, s.Close())
			s = w.open()
		}
		must(t, s.Close())
		w.settled(name, want)
	}
}

// TestManifestRebuiltRefuses: plaintext that lies there when the manifest is
// rebuilt is not taken in.
func TestManifestRebuiltRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	plain := newWorld(t)
	p := plain.open()
	_, err := p.SetPosture(t.Context(), PosturePlaintext, nil)
	must(t, err)
	addNotes(t, p, Memory, 3)
	must(t, p.Close())
	raw, err := os.ReadFile(filepath.Join(plain.root, Memory.path()))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.root, Memory.path()), raw, 0o600))
	must(t, os.Remove(filepath.Join(w.root, manifestFile)))
	for range 2 {
		s := w.open()
		var issue Issue
		err := use(t, s, Memory, func(*sqlcipher.DB) error { return nil })
		if !errors.As(err, &issue) || issue.Kind != IssueUnexpectedPlaintext {
			t.Errorf("%v", err)
		}
		must(t, s.Close())
	}
}
