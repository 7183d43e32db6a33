package storage

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/storage/sqlcipher"
)

var (
	kills = flag.Int("kills", 12, "how many processes TestKilled kills")
	child = flag.String("child", "", "the root that a re-executed test binary works on")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *child != "" {
		if err := work(*child, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func openHome(ctx context.Context, root string) (*Storage, keystore.Store, error) {
	vault, err := keystore.OpenFile(filepath.Join(root, "keystore.osks"), secret.Bytes{}, keystore.FileOptions{MemoryKiB: 8, Passes: 1})
	if err != nil {
		return nil, nil, err
	}
	s, err := Open(ctx, Config{Root: root, Keystore: vault})
	return s, vault, err
}

// work stores rows and tells of each that is stored; now and then everything
// gets a new key. It ends when it is killed.
func work(root string, out io.Writer) error {
	ctx := context.Background()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	s, _, err := openHome(ctx, root)
	if err != nil {
		return err
	}
	st, err := s.Store(ChatHistory, Options{})
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		var id int64
		err := st.Use(ctx, func(db *sqlcipher.DB) error {
			return db.Tx(ctx, func(tx *sql.Tx) error {
				if _, err := tx.Exec(notes); err != nil {
					return err
				}
				res, err := tx.Exec("INSERT INTO notes(text) VALUES (?)", planted)
				if err != nil {
					return err
				}
				id, err = res.LastInsertId()
				return err
			})
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "row", id)
		if n%10 == 0 {
			_, err := s.Rotate(ctx, RotateOptions{Progress: func(p Progress) { fmt.Fprintln(out, "rotating", p.Done) }})
			if err != nil {
				return err
			}
			fmt.Fprintln(out, "rotated")
		}
	}
}

// TestKilled: whatever the process was doing when it was killed, every row it
// told of is there, with one key, and nothing is readable.
func TestKilled(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	self, err := os.Executable()
	must(t, err)
	acknowledged := int64(0)
	for n := range *kills {
		last := killOnce(t, self, root, 1+rand.IntN(60))
		acknowledged = max(acknowledged, last)
		s, vault, err := openHome(t.Context(), root)
		must(t, err)
		var count, highest int64
		must(t, use(t, s, ChatHistory, func(db *sqlcipher.DB) error {
			return db.Read.QueryRow("SELECT count(*), max(id) FROM notes").Scan(&count, &highest)
		}))
		if count < acknowledged || count != highest {
			t.Fatalf("kill %d: %d rows up to %d, %d were acknowledged", n, count, highest, acknowledged)
		}
		issues, files, err := s.VerifyAll(t.Context(), nil)
		if err != nil || len(issues)+len(files) > 0 {
			t.Fatalf("kill %d: %v, %v, %v", n, issues, files, err)
		}
		must(t, errors.Join(s.Close(), vault.Close()))
		w := &world{t: t, root: root}
		if left := w.readable(); len(left) > 0 {
			t.Fatalf("kill %d: readable: %v", n, left)
		}
	}
	if acknowledged == 0 {
		t.Error("no row was acknowledged")
	}
}

// killOnce kills a worker after so many lines and returns the last row it told
// of.
func killOnce(t *testing.T, self, root string, lines int) (last int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self, "-child", root)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	r := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := r.ReadString('\n')
		if row, ok := strings.CutPrefix(line, "row "); ok && err == nil {
			if last, err = strconv.ParseInt(strings.TrimSpace(row), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break // it is gone, and so is all it said
		}
		if n == lines {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the worker ended by itself: %v", err)
	}
	return last
}
