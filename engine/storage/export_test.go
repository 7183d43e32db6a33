package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

// ageKey makes an identity for the length of a test.
func ageKey(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id
}

// settings puts plain files of the owner below the root.
func (w *world) settings() {
	w.t.Helper()
	for rel, text := range map[string]string{"config/server.json": `{"port":1}`, "agents/00000000-0000-4000-8000-00000000000A.json": `{}`, "agents/00000000-0000-4000-8000-00000000000A/views/a b.sql": "SELECT 1", "runtime/no.json": "no", "config/.hidden": "no"} {
		path := filepath.Join(w.root, filepath.FromSlash(rel))
		must(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(w.t, os.WriteFile(path, []byte(text), 0o600))
	}
}

// TestExportAndImport: in every form, from and into either posture, all of it
// comes back in an empty home under another key, and nothing readable is left
// on the way.
func TestExportAndImport(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"folder", "tar", "age"} {
		for _, from := range []Posture{PostureEncrypted, PosturePlaintext} {
			t.Run(fmt.Sprintf("%s from %s", form, from), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				s := w.open()
				fill(t, s)
				w.settings()
				if from == PosturePlaintext {
					_, err := s.SetPosture(t.Context(), from, nil)
					must(t, err)
				}
				want := content(t, s)
				must(t, s.Close())
				before := w.tree()
				s = w.open()
				o := ExportOptions{Dest: t.TempDir(), Tar: form == "tar", AppVersion: "1.2.3"}
				id := ageKey(t)
				if form == "age" {
					o.Recipients = []age.Recipient{id.Recipient()}
				}
				var told Progress
				o.Progress = func(p Progress) { told = p }
				done, err := s.Export(t.Context(), o)
				must(t, err)
				if told.Done != told.Total || told.Total == 0 || len(done.Failed) > 0 {
					t.Errorf("told %+v, failed %v", told, done.Failed)
				}
				if got := done.Counts; !maps.Equal(got, map[archive.Kind]int{archive.Database: 5, archive.Blob: 5, archive.Config: 5}) {
					t.Errorf("exported %v", got)
				}
				must(t, s.Close())
				if after := w.tree(); !maps.Equal(before, after) {
					t.Error("the export changed its source")
				}
				if entries, _ := os.ReadDir(o.Dest); len(entries) != 1 || entries[0].Name() != filepath.Base(done.Path) {
					t.Errorf("beside the export: %v", entries)
				}
				checkExport(t, done.Path, form)

				to := newWorld(t)
				src, err := archive.Open(done.Path, id)
				must(t, err)
				other := to.open()
				got, err := other.Import(t.Context(), ImportOptions{Source: src})
				must(t, err)
				if len(got.Stores) != 5 || got.Blobs != 5 || got.Files != 5 || len(got.Replaced) != 0 {
					t.Errorf("imported %+v", got)
				}
				must(t, other.Close())
				if leaks := to.readable(); len(leaks) > 0 {
					t.Errorf("readable after the import: %v", leaks)
				}
				to.settled("imported", want)
				for _, rel := range []string{"config/server.json", "agents/00000000-0000-4000-8000-00000000000A/views/a b.sql"} {
					if !exists(filepath.Join(to.root, rel)) {
						t.Errorf("%s did not come back", rel)
					}
				}
			})
		}
	}
}

// checkExport looks at the files as a stranger would.
func checkExport(t *testing.T, path, form string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if form != "folder" {
		raw, err := os.ReadFile(path)
		must(t, err)
		if readable := bytes.Contains(raw, []byte(planted)); readable == (form == "age") {
			t.Errorf("the sentence is readable: %v", readable)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		return
	}
	must(t, filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return err
	}))
	var m archive.Manifest
	raw, err := os.ReadFile(filepath.Join(path, "manifest.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &m))
	if !m.Complete || m.V != 1 || m.AppVersion != "1.2.3" || m.Created.Unix() != 1_800_000_000 {
		t.Errorf("manifest %+v", m)
	}
	for _, name := range []string{"chat-history/history.sqlite", "Tools/com.acme.weather/data/data.db", "Tools/org.other/data/data.db"} {
		r, err := sqlcipher.Driver{}.Verify(t.Context(), sqlcipher.File{Path: filepath.Join(path, "databases", name)})
		if err != nil || r.Rows["notes"] != 40 {
			t.Errorf("%s: %v %v", name, r.Rows, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(path, "config/identity/peers.json")); err != nil || !strings.Contains(string(text), planted) {
		t.Errorf("peers.json: %v", err)
	}
}

func TestExportRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fillLittle(t, s)
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(t.TempDir(), link))
	intoHome := filepath.Join(t.TempDir(), "home")
	must(t, os.Symlink(w.root, intoHome))
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for name, dest := range map[string]string{
		"relative": "here", "missing": filepath.Join(dir, "none"), "a file": filepath.Join(dir, "file"), "a link": link,
		"the home": w.root, "below the home": filepath.Join(w.root, "chat-history"), "the home by a link": filepath.Join(intoHome, "chat-history"),
	} {
		if _, err := s.Export(t.Context(), ExportOptions{Dest: dest}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	dest := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dest, archive.Name(w.clock)), 0o700))
	if _, err := s.Export(t.Context(), ExportOptions{Dest: dest}); !errors.Is(err, archive.ErrExists) {
		t.Errorf("an export of the same second: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	dest = t.TempDir()
	_, err := s.Export(ctx, ExportOptions{Dest: dest, Progress: func(Progress) { cancel() }})
	if entries, _ := os.ReadDir(dest); !errors.Is(err, context.Canceled) || len(entries) != 0 {
		t.Errorf("cancelled: %v, left %v", err, entries)
	}
	full := newWorld(t)
	c := Config{Root: full.root, Keystore: full.vault, Disk: disk.Disk{Space: func(string) (int64, error) { return spare, nil }}}
	s, err = Open(t.Context(), c)
	must(t, err)
	must(t, s.WriteSealed(t.Context(), "tasks.json", []byte("{}")))
	if _, err := s.Export(t.Context(), ExportOptions{Dest: t.TempDir()}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("no room: %v", err)
	}
	must(t, s.Close())
}

// TestExportOfDamagedStores: what does not open is told and the rest is
// exported; such an export is taken only when asked for.
func TestExportOfDamagedStores(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(w.root, "memory/memory.sqlite"), bytes.Repeat([]byte{7}, 8192), 0o600))
	must(t, os.WriteFile(filepath.Join(w.root, "tasks.json.osec"), []byte("OSEC\x02 and nothing that follows from it at all, only words"), 0o600))
	blobs, err := os.ReadDir(filepath.Join(w.root, blobsDir))
	must(t, err)
	must(t, os.Truncate(filepath.Join(w.root, blobsDir, blobs[0].Name()), 70))
	must(t, os.WriteFile(filepath.Join(w.root, "agents/bad\nname.sql"), nil, 0o600))
	s = w.open()
	done, err := s.Export(t.Context(), ExportOptions{Dest: t.TempDir(), Tar: true})
	must(t, err)
	if len(done.Failed) != 4 || done.Counts[archive.Database] != 4 {
		t.Fatalf("failed %+v, exported %v", done.Failed, done.Counts)
	}
	src, err := archive.Open(done.Path)
	must(t, err)
	to := newWorld(t).open()
	if _, err := to.Import(t.Context(), ImportOptions{Source: src}); !errors.Is(err, archive.ErrIncomplete) {
		t.Errorf("taken without being asked for: %v", err)
	}
	got, err := to.Import(t.Context(), ImportOptions{Source: src, Partial: true})
	if err != nil || len(got.Missing) != 4 || len(got.Stores) != 4 {
		t.Errorf("partial: %+v %v", got, err)
	}
}

// TestExportStoppedAnywhere stops it at every change of the disk: the source is
// as it was, and after the next start nothing of the export is left beside a
// whole one.
func TestExportStoppedAnywhere(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	s := first.open()
	fillLittle(t, s)
	must(t, s.Close())
	for _, tarred := range []bool{false, true} {
		for _, dead := range []bool{true, false} {
			for at := 1; ; at++ {
				w := first.twin()
				before := w.tree()
				b, dest := &brake{}, t.TempDir()
				s, err := w.tryOpen(b)
				must(t, err)
				*b = brake{at: at, dead: dead}
				_, err = s.Export(t.Context(), ExportOptions{Dest: dest, Tar: tarred})
				stopped := b.fired
				*b = brake{}
				_ = s.Close() // it may be dead
				if stopped && err == nil {
					t.Fatalf("step %d: stopped and not told", at)
				}
				entries, _ := os.ReadDir(dest)
				if !dead && len(entries) > 0 && archive.IsPartial(entries[0].Name()) && !strings.Contains(fmt.Sprint(err), "could not be removed") {
					t.Fatalf("step %d: %v is left and not told: %v", at, entries[0], err)
				}
				must(t, w.open().Close())
				entries, _ = os.ReadDir(dest)
				if len(entries) > 1 || len(entries) == 1 && archive.IsPartial(entries[0].Name()) {
					t.Fatalf("dead %v, step %d: %v is left", dead, at, entries)
				}
				if after := w.tree(); !maps.Equal(before, after) {
					t.Fatalf("dead %v, step %d: the source changed", dead, at)
				}
				if !stopped {
					must(t, err)
					if at < 10 {
						t.Fatalf("only %d steps", at)
					}
					break
				}
			}
		}
	}
}

// exported makes an export of a little world for imports to be tried with.
func exported(t testing.TB, o ExportOptions) (path string, want map[string]string) {
	t.Helper()
	w := newWorld(t)
	s := w.open()
	fillLittle(t, s)
	addNotes(t, s, ChatHistory, 2)
	want = content(t, s)
	o.Dest = t.TempDir()
	done, err := s.Export(t.Context(), o)
	must(t, err)
	return done.Path, want
}

// TestImportStoppedAnywhere: into a home that has something already. Either
// all of it is there afterwards or none, and what was replaced is set aside.
func TestImportStoppedAnywhere(t *testing.T) {
	t.Parallel()
	path, want := exported(t, ExportOptions{})
	first := newWorld(t)
	s := first.open()
	addNotes(t, s, ChatHistory, 1)
	must(t, s.WriteSealed(t.Context(), "identity/peers.json", []byte(`{"old":1}`)))
	old := content(t, s)
	must(t, s.Close())
	for _, dead := range []bool{true, false} {
		for at := 1; ; at++ {
			w := first.twin()
			b := &brake{}
			s, err := w.tryOpen(b)
			must(t, err)
			src, err := archive.Open(path)
			must(t, err)
			*b = brake{at: at, dead: dead}
			_, err = s.Import(t.Context(), ImportOptions{Source: src})
			stopped := b.fired
			*b = brake{at: 1, dead: dead && stopped}
			_ = s.Close() // it may be dead
			name := fmt.Sprintf("dead %v, step %d", dead, at)
			s = w.open()
			got := content(t, s)
			must(t, s.Close())
			if maps.Equal(withoutBlobs(got), old) {
				got = old
			} else if !maps.Equal(got, want) {
				t.Fatalf("%s: neither the one nor the other:\n%v", name, got)
			}
			if err == nil && !maps.Equal(got, want) {
				t.Fatalf("%s: said to be done", name)
			}
			if maps.Equal(got, want) {
				w.settled(name, want)
				checkReplaced(t, w, name)
			}
			for file := range w.tree() {
				if isLeftover(filepath.Base(file)) || strings.HasSuffix(file, journalFile) {
					t.Fatalf("%s: %s is left", name, file)
				}
			}
			if !stopped {
				must(t, err)
				if at < 20 {
					t.Fatalf("only %d steps", at)
				}
				break
			}
		}
	}
}

// withoutBlobs drops attachments that nobody mentions: they go later.
func withoutBlobs(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, blobsDir) })
	return out
}

func checkReplaced(t *testing.T, w *world, name string) {
	t.Helper()
	s := w.open()
	defer func() { must(t, s.Close()) }()
	aside, err := s.Quarantine()
	must(t, err)
	var paths []string
	for _, q := range aside {
		paths = append(paths, q.Path)
		if !exists(filepath.Join(s.file(q.Folder), filepath.Base(q.Path))) {
			t.Fatalf("%s: %s has no file", name, q.Folder)
		}
	}
	slices.Sort(paths)
	if !slices.Equal(paths, []string{"chat-history/history.sqlite", "identity/peers.json.osec"}) {
		t.Fatalf("%s: set aside %v", name, paths)
	}
}

// TestImportRefuses: an export that is not what it says changes nothing.
func TestImportRefuses(t *testing.T) {
	t.Parallel()
	good, _ := exported(t, ExportOptions{})
	item := func(m map[string]any, n int) map[string]any { return m["items"].([]any)[n].(map[string]any) }
	manifest := func(t *testing.T, dir string, change func(m map[string]any)) {
		var m map[string]any
		path := filepath.Join(dir, "manifest.json")
		raw, err := os.ReadFile(path)
		must(t, err)
		must(t, json.Unmarshal(raw, &m))
		change(m)
		raw, err = json.Marshal(m)
		must(t, err)
		must(t, os.WriteFile(path, raw, 0o600))
	}
	database := func(dir string) string { return filepath.Join(dir, "databases/chat-history/history.sqlite") }
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"a flipped bit": func(t *testing.T, dir string) {
			raw, err := os.ReadFile(database(dir))
			must(t, err)
			raw[5000] ^= 1
			must(t, os.WriteFile(database(dir), raw, 0o600))
		},
		"a longer file":    func(t *testing.T, dir string) { must(t, os.Truncate(database(dir), 1<<20)) },
		"a missing file":   func(t *testing.T, dir string) { must(t, os.Remove(database(dir))) },
		"an unlisted file": func(t *testing.T, dir string) { must(t, os.WriteFile(filepath.Join(dir, "config/x"), nil, 0o600)) },
		"a link":           func(t *testing.T, dir string) { must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "config/x"))) },
		"no manifest":      func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "manifest.json"))) },
		"a broken manifest": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{"), 0o600))
		},
		"another version": func(t *testing.T, dir string) { manifest(t, dir, func(m map[string]any) { m["v"] = 2 }) },
		"a listed twice": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { m["items"] = append(m["items"].([]any), item(m, 0)) })
		},
		"a path outside": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 0)["path"] = "blobs/../../x" })
		},
		"another kind": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 0)["kind"] = "config" })
		},
		"another store": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 3)["store"] = "memory" })
		},
		"other rows": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 3)["tables"] = map[string]any{"notes": 9} })
		},
		"another schema": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 3)["schema_version"] = 5 })
		},
		"a key of the store": func(t *testing.T, dir string) {
			manifest(t, dir, func(m map[string]any) { item(m, 1)["path"] = "config/.storage-key.salt" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), filepath.Base(good))
			must(t, os.CopyFS(dir, os.DirFS(good)))
			spoil(t, dir)
			w := newWorld(t)
			s := w.open()
			addNotes(t, s, ChatHistory, 1)
			must(t, s.Close())
			before := w.tree()
			s = w.open()
			src, err := archive.Open(dir)
			must(t, err)
			if _, err := s.Import(t.Context(), ImportOptions{Source: src, Partial: true}); err == nil {
				t.Fatal("taken")
			}
			must(t, s.Close())
			if after := w.tree(); !maps.Equal(before, after) {
				t.Errorf("something changed:\n%v\n%v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

// TestImportOfWrongPlaces: files of an export whose manifest is right, and that
// have no place in a home.
func TestImportOfWrongPlaces(t *testing.T) {
	t.Parallel()
	for _, it := range []archive.Item{
		{Kind: archive.Config, Path: "config/security.log"},
		{Kind: archive.Config, Path: "config/identity/account.json"},
		{Kind: archive.Config, Path: "config/runtime/x.json"},
		{Kind: archive.Config, Path: "config/agents/00000000-0000-4000-8000-00000000000A/db.sqlite"},
		{Kind: archive.Config, Path: "config/config/x.osec"},
		{Kind: archive.Database, Path: "databases/billing/ledger.sqlite", Store: "billing"},
		{Kind: archive.Database, Path: "databases/memory/memory.sqlite", Store: "chat-history"},
		{Kind: archive.Database, Path: "databases/memory/memory.sqlite", Store: "memory", SchemaVersion: 10},
		{Kind: archive.Database, Path: "databases/chat-history/history.sqlite", Store: "chat-history"},
	} {
		w, err := archive.Create(archive.Options{Dir: t.TempDir(), Tar: true, Created: time.Unix(0, 0)})
		must(t, err)
		must(t, w.Add(it, 4096, func(dst io.Writer) error { _, err := dst.Write(make([]byte, 4096)); return err }))
		path, _, err := w.Commit()
		must(t, err)
		src, err := archive.Open(path)
		must(t, err)
		to := newWorld(t)
		s := to.open()
		addNotes(t, s, ChatHistory, 1)
		must(t, s.Close())
		before := to.tree()
		s = to.open()
		if _, err := s.Import(t.Context(), ImportOptions{Source: src}); err == nil {
			t.Errorf("%s was taken", it.Path)
		}
		must(t, s.Close())
		if !maps.Equal(before, to.tree()) {
			t.Errorf("%s changed something", it.Path)
		}
	}
}
