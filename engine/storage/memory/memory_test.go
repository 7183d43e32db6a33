package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/storage"
	"osaurus/engine/storage/migrate"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

var clock = time.Unix(1_800_000_000, 0).UTC()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) (*Memory, *storage.Storage, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	s, err := storage.Open(t.Context(), storage.Config{Root: root, Keystore: keystore.NewMemory()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	m, err := New(s, func() time.Time { return clock })
	must(t, err)
	return m, s, root
}

func (m *Memory) contents(t testing.TB, agent, text string) string {
	t.Helper()
	found, err := m.Query(t.Context(), agent, text, 0)
	must(t, err)
	var all []string
	for _, f := range found {
		all = append(all, f.Kind+":"+f.Content)
	}
	return strings.Join(all, "|")
}

func TestFacts(t *testing.T) {
	t.Parallel()
	m, _, _ := open(t)
	one, err := m.Add(t.Context(), "A", "Zoë likes the walrus")
	must(t, err)
	_, err = m.Add(t.Context(), "B", "the walrus is B's")
	must(t, err)
	if got := m.contents(t, "A", "zoe WALRUS"); got != "fact:Zoë likes the walrus" {
		t.Errorf("%q", got)
	}
	facts, err := m.Facts(t.Context(), "A")
	if err != nil || len(facts) != 1 || facts[0] != one || !one.Created.Equal(clock) {
		t.Errorf("%+v, %v", facts, err)
	}
	if all, err := m.Facts(t.Context(), ""); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	must(t, m.Forget(t.Context(), one.ID))
	if got := m.contents(t, "A", "walrus"); got != "" {
		t.Errorf("after it was forgotten: %q", got)
	}
	if err := m.Forget(t.Context(), one.ID); !errors.Is(err, fault.Usage) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", " \n", strings.Repeat("x", MaxFact+1)} {
		if _, err := m.Add(t.Context(), "A", bad); !errors.Is(err, fault.Usage) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	_, err = m.Add(t.Context(), "A", strings.Repeat("x", MaxFact))
	must(t, err)
}

// TestIngest: a conversation is replaced whole, and only its own agent's.
func TestIngest(t *testing.T) {
	t.Parallel()
	m, _, _ := open(t)
	for _, agent := range []string{"A", "B"} {
		n, err := m.Ingest(t.Context(), agent, "c", []Turn{{User: "apples?", Assistant: "apples of " + agent}, {User: "pears?", Assistant: "no"}})
		if err != nil || n != 2 {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if n, err := m.Ingest(t.Context(), "A", "c", []Turn{{User: "plums?", Assistant: "yes", At: clock.Add(-time.Hour)}}); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	for agent, want := range map[string]int{"A": 1, "B": 2, "C": 0} {
		if n, err := m.Count(t.Context(), agent); err != nil || n != want {
			t.Errorf("%s has %d, %v", agent, n, err)
		}
	}
	if got := m.contents(t, "A", "apples") + "/" + m.contents(t, "A", "plums") + "/" + m.contents(t, "B", "apples of"); got != "/user:plums?/assistant:apples of B" {
		t.Errorf("%q", got)
	}
	if _, err := m.Ingest(t.Context(), "A", "c", make([]Turn, MaxTurns+1)); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("%v", err)
	}
	if n, err := m.Ingest(t.Context(), "A", "long", make([]Turn, MaxTurns)); err != nil || n != MaxTurns {
		t.Errorf("%d, %v", n, err)
	}
}

// TestQueries: nothing typed is taken for an operator.
func TestQueries(t *testing.T) {
	t.Parallel()
	m, _, _ := open(t)
	_, err := m.Add(t.Context(), "A", `a "quoted" NEAR well-known_name AND (more)`)
	must(t, err)
	for _, text := range []string{`"quoted"`, "NEAR", "AND OR NOT", "well-known_name", "(more", "more*", "content:more", `a" OR "b`, "^a", "", "***", "日本", "x' --"} {
		if _, err := m.Query(t.Context(), "A", text, 0); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got := m.contents(t, "A", "well-known_name"); got == "" {
		t.Error("a name with a dash is not found")
	}
	for i := range 5 {
		_, err := m.Add(t.Context(), "A", fmt.Sprint("many ", i))
		must(t, err)
	}
	if found, err := m.Query(t.Context(), "A", "many", 3); err != nil || len(found) != 3 {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestNoWords: signs alone are looked for as they stand.
func TestNoWords(t *testing.T) {
	t.Parallel()
	m, _, _ := open(t)
	for _, text := range []string{"100% sure", "what?!", "a*b", `back\slash`} {
		_, err := m.Add(t.Context(), "A", text)
		must(t, err)
	}
	_, err := m.Ingest(t.Context(), "A", "c", []Turn{{User: "really?!"}})
	must(t, err)
	for text, want := range map[string]string{"?!": "fact:what?!|user:really?!", "%": "fact:100% sure", "*": "fact:a*b", `\`: `fact:back\slash`, " ": "", "§": ""} {
		if got := m.contents(t, "A", text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := m.contents(t, "B", "?!"); got != "" {
		t.Errorf("another agent's: %q", got)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[int]storage.IssueKind{migrations.MemoryVersion: "", migrations.MemoryVersion + 1: storage.IssueForwardVersion, 4: ""} {
		m, s, _ := open(t)
		_, err := m.Add(t.Context(), "A", "kept")
		must(t, err)
		must(t, m.store.Use(t.Context(), func(db *sqlcipher.DB) error {
			_, err := db.Write.Exec(fmt.Sprintf("PRAGMA user_version = %d", version))
			return err
		}))
		// Maintenance closes nothing; an operation over all stores does.
		_, err = s.Rotate(t.Context(), storage.RotateOptions{})
		must(t, err)
		facts, err := m.Facts(t.Context(), "A")
		var issue storage.Issue
		if want == "" && (err != nil || len(facts) != 1) || want != "" && (!errors.As(err, &issue) || issue.Kind != want) {
			t.Errorf("version %d: %+v, %v", version, facts, err)
		}
	}
}

// TestOlderHosts: memories of two older hosts come along, found by their words,
// and nothing else of them is dropped.
func TestOlderHosts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version int
		script  []string
		query   string
		want    string
	}{
		"version 3, chunks and summaries": {3, []string{
			"CREATE TABLE user_profile (id INTEGER PRIMARY KEY, content TEXT, version INTEGER)",
			"INSERT INTO user_profile VALUES (1, 'likes ice', 2)",
			"CREATE TABLE conversation_chunks (id INTEGER PRIMARY KEY, agent_id TEXT, conversation_id TEXT, chunk_index INTEGER, role TEXT, content TEXT, created_at TEXT)",
			"INSERT INTO conversation_chunks VALUES (4, 'A', 'c', 0, 'user', 'a walrus came', '2025-01-02T03:04:05Z')",
			"INSERT INTO conversation_chunks VALUES (5, 'A', 'c', 1, NULL, 'the walrus left', NULL)",
			"CREATE TABLE conversation_summaries (id INTEGER PRIMARY KEY, agent_id TEXT, conversation_id TEXT, summary TEXT, conversation_at TEXT)",
			"INSERT INTO conversation_summaries VALUES (9, 'A', 'c', 'on the walrus', NULL)",
			"CREATE TABLE knowledge_graph (a TEXT)", "INSERT INTO knowledge_graph VALUES ('kept')",
		}, "walrus", "episode:on the walrus|user:a walrus came|user:the walrus left"},
		"version 8, a column that must go": {8, []string{
			"CREATE TABLE pinned_facts (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, content TEXT NOT NULL, salience REAL, created_at TEXT)",
			"INSERT INTO pinned_facts VALUES ('F', 'A', 'a pinned walrus', 0.9, '2025-01-02T03:04:05Z')",
			"CREATE TABLE pending_signals (id INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL, conversation_id TEXT NOT NULL, signal_type TEXT NOT NULL, user_message TEXT NOT NULL, status TEXT, created_at TEXT)",
			"INSERT INTO pending_signals VALUES (1, 'A', 'c', 'orphan', 'hi', 'pending', '')",
			"CREATE VIRTUAL TABLE fts_pinned USING fts5(content, content='pinned_facts')",
			"CREATE TRIGGER stale AFTER INSERT ON pinned_facts BEGIN INSERT INTO nowhere VALUES (new.id); END",
			"CREATE TABLE knowledge_graph (a TEXT)", "INSERT INTO knowledge_graph VALUES ('kept')",
		}, "walrus", "fact:a pinned walrus"},
	} {
		m, s, _ := open(t)
		raw, err := s.Store("agent:00000000-0000-4000-8000-000000000001", storage.Options{})
		must(t, err)
		must(t, raw.Use(t.Context(), func(db *sqlcipher.DB) error {
			for _, q := range append(c.script, fmt.Sprintf("PRAGMA user_version = %d", c.version)) {
				if _, err := db.Write.Exec(q); err != nil {
					return fmt.Errorf("%s: %w", q, err)
				}
			}
			return setup(t.Context(), db)
		}))
		must(t, raw.Use(t.Context(), func(db *sqlcipher.DB) error {
			if v, err := migrate.Version(t.Context(), db); err != nil || v != migrations.MemoryVersion {
				t.Errorf("%s: version %d %v", name, v, err)
			}
			var keptRows int
			if err := db.Read.QueryRow("SELECT count(*) FROM knowledge_graph").Scan(&keptRows); err != nil || keptRows != 1 {
				t.Errorf("%s: another table: %d %v", name, keptRows, err)
			}
			_, err := db.Write.Exec("INSERT INTO pending_signals(agent_id, conversation_id, user_message, created_at) VALUES ('A', 'c', 'x', '')")
			return err
		}))
		m.store = raw
		if got := m.contents(t, "A", c.query); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
		_, err = m.Add(t.Context(), "A", "a new walrus")
		must(t, err)
	}
}

// TestOlderEdits: what the owner wrote into a profile stands behind the
// overrides, and what was said is its agent's.
func TestOlderEdits(t *testing.T) {
	t.Parallel()
	chunks := []string{
		"CREATE TABLE conversations (id TEXT PRIMARY KEY, agent_id TEXT, title TEXT)",
		"INSERT INTO conversations VALUES ('c', 'A', 't'), ('n', NULL, 't')",
		"CREATE TABLE conversation_chunks (id INTEGER PRIMARY KEY, conversation_id TEXT, chunk_index INTEGER, role TEXT, content TEXT)",
		"INSERT INTO conversation_chunks VALUES (1, 'c', 0, 'user', 'walrus'), (2, 'n', 0, 'user', 'x'), (3, 'gone', 0, 'user', 'y')",
	}
	for name, c := range map[string]struct {
		script []string
		want   string
		table  bool // user_edits is still there
	}{
		"none": {nil, "", false},
		"two, one deleted": {[]string{
			"CREATE TABLE user_edits (id INTEGER PRIMARY KEY, content TEXT, created_at TEXT, deleted_at TEXT)",
			`INSERT INTO user_edits VALUES (1, 'call me "Al"', '', NULL), (2, 'never mind', '', '2025-01-01'), (3, 'no ice', '', ''), (4, ' ', '', NULL), (5, NULL, '', NULL)`,
		}, `["call me \"Al\"","no ice"]`, false},
		"few columns, and a profile": {[]string{
			"CREATE TABLE user_profile (id INTEGER PRIMARY KEY, content TEXT)", "INSERT INTO user_profile VALUES (1, 'likes ice')",
			"CREATE TABLE user_edits (content TEXT)", "INSERT INTO user_edits VALUES ('a'), ('b')",
		}, `["a","b"]`, false},
		"overrides there": {[]string{
			"CREATE TABLE identity (id INTEGER PRIMARY KEY, content TEXT, overrides TEXT)", `INSERT INTO identity VALUES (1, 'x', '[{"k":1}]')`,
			"CREATE TABLE user_edits (content TEXT)", "INSERT INTO user_edits VALUES ('a')",
		}, `[{"k":1},"a"]`, false},
		"overrides that do not parse": {[]string{
			"CREATE TABLE identity (id INTEGER PRIMARY KEY, content TEXT, overrides TEXT)", `INSERT INTO identity VALUES (1, 'x', '{')`,
			"CREATE TABLE user_edits (content TEXT)", "INSERT INTO user_edits VALUES ('a')",
		}, `{`, true},
		"all deleted": {[]string{
			"CREATE TABLE user_edits (content TEXT, deleted_at TEXT)", "INSERT INTO user_edits VALUES ('a', '2025')",
		}, "", false},
		"another table of that name": {[]string{"CREATE TABLE user_edits (note TEXT)", "INSERT INTO user_edits VALUES ('a')"}, "", true},
	} {
		_, s, _ := open(t)
		raw, err := s.Store("agent:00000000-0000-4000-8000-000000000001", storage.Options{})
		must(t, err)
		must(t, raw.Use(t.Context(), func(db *sqlcipher.DB) error {
			for _, q := range slices.Concat(chunks, c.script, []string{"PRAGMA user_version = 4"}) {
				if _, err := db.Write.Exec(q); err != nil {
					return fmt.Errorf("%s: %w", q, err)
				}
			}
			if err := setup(t.Context(), db); err != nil {
				return err
			}
			var got string
			if err := db.Read.QueryRow("SELECT coalesce(max(overrides), '') FROM identity").Scan(&got); err != nil || got != c.want {
				t.Errorf("%s: overrides %s, %v", name, got, err)
			}
			var tables int
			if err := db.Read.QueryRow("SELECT count(*) FROM sqlite_master WHERE name = 'user_edits'").Scan(&tables); err != nil || (tables == 1) != c.table {
				t.Errorf("%s: %d tables, %v", name, tables, err)
			}
			var agents string
			if err := db.Read.QueryRow("SELECT group_concat(agent_id, ',') FROM (SELECT agent_id FROM transcript ORDER BY id)").Scan(&agents); err != nil || agents != "A,," {
				t.Errorf("%s: agents %q, %v", name, agents, err)
			}
			return nil
		}))
	}
}

func TestNothingReadable(t *testing.T) {
	t.Parallel()
	m, s, root := open(t)
	const planted = "thewalruskeepstheledger"
	_, err := m.Add(t.Context(), "A", planted)
	must(t, err)
	_, err = m.Ingest(t.Context(), "A", "c", []Turn{{User: planted}})
	must(t, err)
	for _, when := range []string{"open", "closed"} {
		must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if bytes.Contains(raw, []byte(planted)) {
				t.Errorf("%s: %s is readable", when, path)
			}
			return err
		}))
		must(t, s.Close())
	}
}
