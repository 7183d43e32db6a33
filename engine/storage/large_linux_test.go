package storage

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/sqlcipher"
)

var (
	large   = flag.Int64("large", 0, "MiB of chats for TestLarge; 0 leaves it out")
	largeOp = flag.String("large-op", "", "what a re-executed test binary does in -fault-root")
)

// The tree of TestLarge.
const (
	attachments    = 10_000
	attachmentSize = 20 << 10
	rowSize        = 1000

	// maxResident is what an operation may have in memory, in bytes.
	maxResident = 100 << 20
)

// largeOps are run one after the other, each in a process of its own whose
// memory is looked at. Those that can be are first stopped half way.
var largeOps = []struct {
	name string
	run  func(ctx context.Context, s *Storage, dir string, progress func(Progress)) error
}{
	{"migrate", func(ctx context.Context, s *Storage, _ string, p func(Progress)) error {
		_, err := s.Converge(ctx, p)
		return err
	}},
	{"rotate", func(ctx context.Context, s *Storage, _ string, p func(Progress)) error {
		_, err := s.Rotate(ctx, RotateOptions{Progress: p})
		return err
	}},
	{"export", func(ctx context.Context, s *Storage, dir string, p func(Progress)) error {
		_, err := s.Export(ctx, ExportOptions{Dest: dir, Tar: true, Progress: p})
		return err
	}},
	{"import", func(ctx context.Context, s *Storage, dir string, p func(Progress)) error {
		names, err := filepath.Glob(filepath.Join(dir, "*.tar"))
		if err != nil || len(names) == 0 {
			return errors.Join(errors.New("no export"), err)
		}
		src, err := archive.Open(names[0])
		if err == nil {
			_, err = s.Import(ctx, ImportOptions{Source: src, Progress: p})
		}
		return err
	}},
}

// TestLarge: chats of a gibibyte and ten thousand attachments, in a hundred
// mebibytes of memory; each operation is cancelled half way, and done then.
func TestLarge(t *testing.T) {
	if *largeOp != "" {
		runLarge(t)
		return
	}
	if *large == 0 {
		t.Skip("it takes minutes; make soak runs it")
	}
	dir := t.TempDir()
	w := &world{t: t, root: filepath.Join(dir, "home")}
	build(t, w)
	self, err := os.Executable()
	must(t, err)
	for _, op := range largeOps {
		for _, how := range []string{"cancel", "finish"} {
			start := time.Now()
			cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestLarge$", "-test.v", "-large-op", op.name+" "+how, "-fault-root", dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", op.name, how, err, out)
			}
			t.Logf("%s, %s: %.1f s, %s", op.name, how, time.Since(start).Seconds(), regexp.MustCompile(`resident.*`).Find(out))
		}
	}
	s, done := w.file()
	if issues, files, err := s.VerifyAll(t.Context(), nil); err != nil || len(issues)+len(files) > 0 {
		t.Errorf("%v %v %v", issues, files, err)
	}
	var rows int64
	must(t, use(t, s, ChatHistory, func(db *sqlcipher.DB) error { return db.Read.QueryRow("SELECT count(*) FROM notes").Scan(&rows) }))
	hashes, err := s.Blobs().List()
	if want := *large << 20 / rowSize; err != nil || rows != want || len(hashes) != attachments {
		t.Errorf("%d rows of %d, %d attachments: %v", rows, want, len(hashes), err)
	}
	must(t, done())
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
}

// build makes the tree: plaintext chats, as an older host leaves them, and
// sealed attachments.
func build(t *testing.T, w *world) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(w.root, "chat-history"), 0o700))
	db, err := sqlcipher.Driver{}.Open(t.Context(), sqlcipher.File{Path: filepath.Join(w.root, ChatHistory.path())}, sqlcipher.Options{Create: true})
	must(t, err)
	text := strings.Repeat(planted+" ", rowSize/len(planted)+1)[:rowSize]
	_, err = db.Write.Exec(notes)
	must(t, err)
	for left := *large << 20 / rowSize; left > 0; left -= 10_000 {
		must(t, db.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) INSERT INTO notes(text) SELECT ? FROM n", min(left, 10_000), text)
			return err
		}))
	}
	must(t, db.Close())
	s, done := w.file()
	content := []byte(strings.Repeat("a", attachmentSize))
	for i := range attachments {
		copy(content, fmt.Sprintf("%08d", i))
		_, err := s.Blobs().PutBytes(content)
		must(t, err)
	}
	must(t, done())
}

// runLarge is the re-executed process.
func runLarge(t *testing.T) {
	name, how, _ := strings.Cut(*largeOp, " ")
	w := &world{t: t, root: filepath.Join(*faultRoot, "home")}
	s, done := w.file()
	for _, op := range largeOps {
		if op.name != name {
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := 0
		err := op.run(ctx, s, *faultRoot, func(p Progress) {
			told++
			if how == "cancel" && p.Done > p.Total/2 {
				cancel()
			}
		})
		if want := how == "cancel"; errors.Is(err, context.Canceled) != want || !want && err != nil || told < 2 {
			t.Errorf("%s: %v after %d reports", *largeOp, err, told)
		}
	}
	must(t, done())
	peak := resident(t)
	t.Logf("resident %d MiB at most", peak>>20)
	if peak > maxResident {
		t.Errorf("%d MiB were resident", peak>>20)
	}
}

// resident is the most memory this process had, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatal("no VmHWM")
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	must(t, err)
	return kib << 10
}
