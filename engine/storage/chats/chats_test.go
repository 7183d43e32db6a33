package chats

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/storage"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/migrate"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

const planted = "the walrus keeps the ledger under the third stone"

var clock = time.Unix(1_800_000_000, 0).UTC()

// open returns the chat history of a fresh root.
func open(t testing.TB) (*Chats, *storage.Storage, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	s, err := storage.Open(t.Context(), storage.Config{Root: root, Keystore: keystore.NewMemory()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	c, err := New(s, func() time.Time { return clock })
	must(t, err)
	return c, s, root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func image(seed byte, size int) blob.Attachment {
	return blob.Attachment{Kind: blob.Image, Content: bytes.Repeat([]byte{seed}, size)}
}

// whole is a session as it was saved: with the content of its attachments.
func whole(t testing.TB, c *Chats, id string) Session {
	t.Helper()
	s, err := c.Load(t.Context(), id)
	must(t, err)
	for i := range s.Turns {
		for j, a := range s.Turns[i].Attachments {
			if s.Turns[i].Attachments[j], err = c.Content(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func example() Session {
	return Session{
		ID: "S1", Title: "Walrus", CreatedAt: clock.Add(-time.Hour), Model: "m", AgentID: "A", PluginID: "p", ExternalKey: "k", DispatchTaskID: "T", Archived: true, Capabilities: []string{"one", "two"},
		Turns: []Turn{
			{ID: "1", Role: "user", Content: planted, CreatedAt: clock, Attachments: []blob.Attachment{image('a', 20<<10), {Kind: blob.Document, Filename: "x.txt", Content: []byte("short")}}},
			{ID: "2", Role: "assistant", Content: "yes", Thinking: "hm", ToolCalls: []byte(`[{"id":"c"}]`), ToolCallID: "c", ToolResults: []byte(`{"c":"r"}`), CallDurations: []byte(`{"c":1.5}`),
				CompletedAt: clock.Add(time.Second), GeneratedTokens: 7, TimeToFirstToken: 250 * time.Millisecond, ThinkingDuration: 2 * time.Second},
		},
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	want := example()
	must(t, c.Save(t.Context(), want))
	got := whole(t, c, "S1")
	want.Source, want.UpdatedAt, want.TurnCount = SourceChat, clock, 2
	for i := range want.Turns {
		for j := range want.Turns[i].Attachments {
			want.Turns[i].Attachments[j].Size = int64(len(want.Turns[i].Attachments[j].Content))
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
	if _, err := c.Load(t.Context(), "none"); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

// TestDiff: whatever states a session goes through, the last one is loaded,
// and saving it again writes nothing.
func TestDiff(t *testing.T) {
	t.Parallel()
	c, s, _ := open(t)
	st, err := s.Store(storage.ChatHistory, storage.Options{})
	must(t, err)
	changes := func() (n int) {
		must(t, st.Use(t.Context(), func(db *sqlcipher.DB) error {
			return db.Write.QueryRow("SELECT total_changes()").Scan(&n)
		}))
		return n
	}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		id := fmt.Sprint("session ", run)
		turn := rapid.Custom(func(rt *rapid.T) Turn {
			x := Turn{ID: id + rapid.StringMatching("[a-f]").Draw(rt, "id"), Role: "user", Content: rapid.SampledFrom([]string{"", "one", "two"}).Draw(rt, "content")}
			if size := rapid.SampledFrom([]int{0, 10, 16 << 10}).Draw(rt, "size"); size > 0 {
				x.Attachments = []blob.Attachment{image(byte(rapid.IntRange('a', 'c').Draw(rt, "image")), size)}
			}
			return x
		})
		var last []Turn
		for range rapid.IntRange(1, 4).Draw(rt, "states") {
			last = rapid.SliceOfNDistinct(turn, 0, 6, func(x Turn) string { return x.ID }).Draw(rt, "turns")
			must(t, c.Save(t.Context(), Session{ID: id, Title: "t", Turns: last}))
		}
		got := whole(t, c, id)
		if len(got.Turns) != len(last) || got.TurnCount != len(last) {
			rt.Fatalf("%d turns, want %d", len(got.Turns), len(last))
		}
		for i, x := range last {
			g := got.Turns[i]
			if g.ID != x.ID || g.Content != x.Content || len(g.Attachments) != len(x.Attachments) || len(x.Attachments) > 0 && !bytes.Equal(g.Attachments[0].Content, x.Attachments[0].Content) {
				rt.Fatalf("turn %d is %+v, want %+v", i, g, x)
			}
		}
		before := changes()
		must(t, c.Save(t.Context(), Session{ID: id, Title: "t", Turns: last}))
		if after := changes(); after != before {
			rt.Fatalf("saving again writes %d rows", after-before)
		}
	})
}

// TestBlobs: equal attachments share a blob, which lives as long as one turn
// mentions it.
func TestBlobs(t *testing.T) {
	t.Parallel()
	c, s, _ := open(t)
	one, two := example(), example()
	two.ID, two.Turns = "S2", []Turn{{ID: "3", Role: "user", Attachments: []blob.Attachment{image('a', 20<<10)}}}
	must(t, errors.Join(c.Save(t.Context(), one), c.Save(t.Context(), two)))
	blobs := func() int {
		all, err := s.Blobs().List()
		must(t, err)
		return len(all)
	}
	if blobs() != 1 {
		t.Fatalf("%d blobs", blobs())
	}
	must(t, c.Delete(t.Context(), "S1"))
	if blobs() != 1 {
		t.Error("a blob that is mentioned was deleted")
	}
	two.Turns = nil
	must(t, c.Save(t.Context(), two))
	if blobs() != 0 {
		t.Error("a blob that nobody mentions is left")
	}
	// What a process leaves that ends between the blob and its turn.
	_, err := s.Blobs().PutBytes([]byte("orphan"))
	must(t, err)
	clock := clock
	c.now = func() time.Time { return clock }
	clock = time.Now()
	if n, err := c.Sweep(t.Context(), time.Hour); err != nil || n != 0 || blobs() != 1 {
		t.Errorf("within its grace: %d, %v", n, err)
	}
	clock = clock.Add(2 * time.Hour)
	if n, err := c.Sweep(t.Context(), time.Hour); err != nil || n != 1 || blobs() != 0 {
		t.Errorf("after it: %d, %v", n, err)
	}
}

func TestAppendAndLast(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	of := Session{PluginID: PluginHTTP, ExternalKey: "a/b/c", AgentID: "A", Source: SourceHTTP}
	for i := range 3 {
		must(t, c.Append(t.Context(), of, Turn{Role: "system", Content: "not kept"}, Turn{Role: "user", Content: fmt.Sprint("q", i)}, Turn{Role: "assistant", Content: fmt.Sprint("a", i)}))
	}
	got, err := c.Last(t.Context(), of, 3)
	if err != nil || len(got) != 3 || got[0].Content != "a1" || got[2].Content != "a2" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, other := range []Session{{PluginID: PluginHTTP, ExternalKey: "a/b/d", AgentID: "A"}, {PluginID: PluginHTTP, ExternalKey: "a/b/c", AgentID: "B"}} {
		if got, err := c.Last(t.Context(), other, 3); err != nil || len(got) != 0 {
			t.Errorf("another conversation has %+v, %v", got, err)
		}
	}
	list, err := c.List(t.Context(), Filter{Source: SourceHTTP})
	if err != nil || len(list) != 1 || list[0].TurnCount != 6 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	for i, s := range []Session{
		{ID: "1", Title: "50% off", AgentID: "A"}, {ID: "2", Title: "under_score", AgentID: "B"}, {ID: "3", Title: `back\slash`, Archived: true},
		{ID: "4", Title: "plain", Turns: []Turn{{ID: "x", Role: "user", Content: "The WALRUS spoke"}}},
	} {
		c.now = func() time.Time { return clock.Add(time.Duration(i) * time.Second) }
		must(t, c.Save(t.Context(), s))
	}
	for want, f := range map[string]Filter{
		"4 2 1": {}, "4 3 2 1": {Archived: true}, "1": {Text: "%"}, "2": {Text: "_"}, "3": {Text: `\`, Archived: true}, "4": {Text: "walrus"},
		"4 2": {Limit: 2}, "2 ": {AgentID: "B"},
	} {
		list, err := c.List(t.Context(), f)
		must(t, err)
		var ids []string
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		if got := strings.Join(ids, " "); got != strings.TrimSpace(want) {
			t.Errorf("%+v: %q, want %q", f, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	must(t, c.Save(t.Context(), example()))
	for name, s := range map[string]Session{
		"no id":        {},
		"comma":        {ID: "x", Capabilities: []string{"a,b"}},
		"turn, no id":  {ID: "x", Turns: []Turn{{Role: "user"}}},
		"turn twice":   {ID: "x", Turns: []Turn{{ID: "t", Role: "user"}, {ID: "t", Role: "user"}}},
		"turn of else": {ID: "x", Turns: []Turn{{ID: "1", Role: "user"}}},
	} {
		if err := c.Save(t.Context(), s); !errors.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Load(t.Context(), "x"); !errors.Is(err, fault.NotFound) {
		t.Errorf("half of a refused session stays: %v", err)
	}
}

// TestSchema: a database of any older version, of a newer one, and one whose
// stamp is behind its columns open with what they hold.
func TestSchema(t *testing.T) {
	t.Parallel()
	for version := 0; version <= SchemaVersion+3; version++ {
		for _, stuck := range []bool{false, true} {
			c, s, root := open(t)
			path := filepath.Join(root, "chat-history", "history.sqlite")
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			db, err := (sqlcipher.Driver{}).Open(t.Context(), sqlcipher.File{Path: path}, sqlcipher.Options{Create: true})
			must(t, err)
			n := max(1, min(version, SchemaVersion))
			must(t, migrations.Chats[:n].Up(t.Context(), db))
			_, err = db.Write.Exec(fmt.Sprintf("INSERT INTO sessions(id, title) VALUES ('old', 'kept'); INSERT INTO turns(id, session_id, seq, role, content) VALUES ('t', 'old', 0, 'user', 'kept'); PRAGMA user_version = %d", version))
			must(t, err)
			if stuck {
				_, err = db.Write.Exec("PRAGMA user_version = 1")
				must(t, err)
			}
			must(t, db.Close())
			got, err := c.Load(t.Context(), "old")
			if err != nil || got.Title != "kept" || len(got.Turns) != 1 || got.Turns[0].Content != "kept" {
				t.Fatalf("version %d, stuck %v: %+v, %v", version, stuck, got, err)
			}
			must(t, c.Save(t.Context(), example()))
			st, err := s.Store(storage.ChatHistory, storage.Options{})
			must(t, err)
			must(t, st.Use(t.Context(), func(db *sqlcipher.DB) error {
				stamp, err := migrate.Version(t.Context(), db)
				if want := max(version, SchemaVersion); stamp != want && !stuck {
					t.Errorf("version %d is stamped %d", version, stamp)
				}
				return err
			}))
		}
	}
}

// TestOlderHostsReferences: a blob that a row of another host mentions is kept.
func TestOlderHostsReferences(t *testing.T) {
	t.Parallel()
	c, s, _ := open(t)
	must(t, c.Save(t.Context(), example()))
	st, err := s.Store(storage.ChatHistory, storage.Options{})
	must(t, err)
	must(t, st.Use(t.Context(), func(db *sqlcipher.DB) error {
		return db.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("DELETE FROM osr_blob_refs")
			return err
		})
	}))
	c.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if n, err := c.Sweep(t.Context(), time.Hour); err != nil || n != 0 {
		t.Errorf("%d swept, %v", n, err)
	}
}

func TestNothingReadable(t *testing.T) {
	t.Parallel()
	c, s, root := open(t)
	big := example()
	big.Turns[0].Attachments = append(big.Turns[0].Attachments, blob.Attachment{Kind: blob.Document, Filename: "f", Content: []byte(strings.Repeat(planted, 1000))})
	must(t, c.Save(t.Context(), big))
	look := func(when string) {
		must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if bytes.Contains(raw, []byte(planted[:20])) {
				t.Errorf("%s: %s is readable", when, path)
			}
			return err
		}))
	}
	look("open")
	must(t, s.Close())
	look("closed")
}

func TestConcurrentSaves(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 8 {
				x := Session{ID: fmt.Sprint(i), Turns: []Turn{{ID: fmt.Sprint(i), Role: "user", Content: fmt.Sprint(n), Attachments: []blob.Attachment{image(byte(n%2), 20<<10)}}}}
				if err := c.Save(t.Context(), x); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i := range 4 {
		if got := whole(t, c, fmt.Sprint(i)); got.Turns[0].Content != "7" || len(got.Turns[0].Attachments[0].Content) != 20<<10 {
			t.Errorf("%+v", got)
		}
	}
}
