package sqlcipher

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha512"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
)

// The workload of rows S1 to S9: chat rows of about a kilobyte, more of them
// than the cache holds, in sessions of fifty turns.
const (
	benchRows    = 30_000
	benchSession = 50
	benchSchema  = `CREATE TABLE turns (id TEXT PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL, UNIQUE(session, seq));
		CREATE TABLE texts (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
		CREATE VIRTUAL TABLE search USING fts5(body, content='texts', content_rowid='id')`
)

var benchWords = strings.Fields("the walrus and the carpenter were walking close at hand they wept like anything to see such quantities of sand if this were only cleared away they said it would be grand")

// bench is one database of the two that are compared.
type bench struct {
	b    *testing.B
	file File
	db   *DB
	rng  *rand.Rand
	next int
}

func openBench(b *testing.B, name string, key dek.Key) *bench {
	b.Helper()
	x := &bench{b: b, file: File{Path: filepath.Join(b.TempDir(), name), Key: key}, rng: rand.New(rand.NewPCG(1, 2))}
	x.open(true)
	b.Cleanup(func() { _ = x.db.Close() })
	x.exec(benchSchema)
	for x.next < benchRows {
		x.insert(1000)
	}
	x.tx(func(tx *sql.Tx) error {
		for i := range 5000 {
			if _, err := tx.Exec("INSERT INTO texts(id, body) VALUES (?, ?)", i+1, x.text(80)); err != nil {
				return err
			}
		}
		_, err := tx.Exec("INSERT INTO search(search) VALUES ('rebuild')")
		return err
	})
	if err := x.db.Checkpoint(b.Context()); err != nil {
		b.Fatal(err)
	}
	return x
}

func (x *bench) open(create bool) {
	x.b.Helper()
	db, err := (Driver{}).Open(x.b.Context(), x.file, Options{Create: create})
	if err != nil {
		x.b.Fatal(err)
	}
	x.db = db
}

func (x *bench) exec(query string) {
	x.b.Helper()
	if _, err := x.db.Write.Exec(query); err != nil {
		x.b.Fatal(err)
	}
}

func (x *bench) tx(do func(*sql.Tx) error) {
	x.b.Helper()
	if err := x.db.Tx(x.b.Context(), do); err != nil {
		x.b.Fatal(err)
	}
}

func (x *bench) text(words int) string {
	var s strings.Builder
	for range words {
		s.WriteString(benchWords[x.rng.IntN(len(benchWords))])
		s.WriteByte(' ')
	}
	return s.String()
}

func rowID(n int) string { return fmt.Sprintf("%08X-0000-4000-8000-%012X", uint32(n)*2654435761, n) }

func (x *bench) insert(n int) {
	x.b.Helper()
	x.tx(func(tx *sql.Tx) error {
		for range n {
			if _, err := tx.Exec("INSERT INTO turns VALUES (?,?,?,?,?)", rowID(x.next), rowID(x.next/benchSession), x.next%benchSession, "assistant", x.text(180)); err != nil {
				return err
			}
			x.next++
		}
		return nil
	})
}

func (x *bench) cold() { x.exec("PRAGMA shrink_memory") }

func (x *bench) scan(into any, query string, args ...any) {
	x.b.Helper()
	if err := x.db.Write.QueryRow(query, args...).Scan(into); err != nil {
		x.b.Fatal(err)
	}
}

func (x *bench) points(n, of int) {
	var content string
	for range n {
		x.scan(&content, "SELECT content FROM turns WHERE id = ?", rowID(x.rng.IntN(of)))
	}
}

// session reads the turns of a session as the chat history does.
func (x *bench) session(id string) {
	x.b.Helper()
	rows, err := x.db.Write.Query("SELECT id, seq, role, content FROM turns WHERE session = ? ORDER BY seq", id)
	if err != nil {
		x.b.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var turn, role, content string
		var seq int
		if err := rows.Scan(&turn, &seq, &role, &content); err != nil {
			x.b.Fatal(err)
		}
		n++
	}
	if err := rows.Err(); err != nil || n != benchSession {
		x.b.Fatalf("%d turns, %v", n, err)
	}
}

// reseal does to memory what a change of key must do to each page: verify and
// decrypt it, encrypt it and compute its MAC.
func (x *bench) reseal() {
	x.b.Helper()
	info, err := os.Stat(x.file.Path)
	if err != nil {
		x.b.Fatal(err)
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		x.b.Fatal(err)
	}
	page, mac := make([]byte, PageSize), hmac.New(sha512.New, make([]byte, 32))
	for range info.Size() / PageSize {
		mac.Reset()
		mac.Write(page)
		mac.Sum(nil)
		cipher.NewCBCDecrypter(block, page[:aes.BlockSize]).CryptBlocks(page, page)
		cipher.NewCBCEncrypter(block, page[:aes.BlockSize]).CryptBlocks(page, page)
		mac.Reset()
		mac.Write(page)
		mac.Sum(nil)
	}
}

// BenchmarkStores is rows S1 to S10: what encryption costs beside the same
// library on a plaintext file.
func BenchmarkStores(b *testing.B) {
	key, err := dek.New(secret.New([]byte("0123456789abcdef0123456789abcdef")))
	if err != nil {
		b.Fatal(err)
	}
	ours, plain := openBench(b, "ours.sqlite", key), openBench(b, "plain.sqlite", dek.Key{})
	row := func(name string, goal float64, do func(x *bench)) {
		b.Run(name, func(b *testing.B) {
			benchratio.Compare(b, benchratio.Calling, benchratio.AtMost(goal), func() { do(ours) }, func() { do(plain) })
		})
	}
	row("S1 insert 100 a transaction", 2.0, func(x *bench) { x.insert(100) })
	row("S2 insert 1 a transaction", 1.9, func(x *bench) { x.insert(1) })
	row("S3 cold point reads", 2.5, func(x *bench) { x.cold(); x.points(200, benchRows) })
	row("S4 point reads in cache", 1.25, func(x *bench) { x.points(50, 100) })
	row("S5 cold session of 50 turns", 2.4, func(x *bench) {
		x.cold()
		for range 20 {
			x.session(rowID(x.rng.IntN(benchRows / benchSession)))
		}
	})
	row("S6 full scan", 4.5, func(x *bench) {
		x.cold()
		var n int
		x.scan(&n, "SELECT sum(length(content)) FROM turns")
	})
	row("S7 build of a full-text index", 1.2, func(x *bench) { x.exec("INSERT INTO search(search) VALUES ('rebuild')") })
	row("S7 full-text search", 1.2, func(x *bench) {
		var n int
		x.scan(&n, "SELECT count(*) FROM (SELECT rowid FROM search WHERE search MATCH ? ORDER BY bm25(search) LIMIT 20)", benchWords[x.rng.IntN(len(benchWords))])
	})
	row("S8 VACUUM", 3.7, func(x *bench) { x.exec("VACUUM") })
	row("S9 open with a raw key", 2.6, func(x *bench) {
		if err := x.db.Abandon(); err != nil {
			x.b.Fatal(err)
		}
		x.open(false)
		var n int
		x.scan(&n, "SELECT count(*) FROM sqlite_master")
	})
	b.Run("S10 new key vs VACUUM INTO and sealing", func(b *testing.B) {
		other, err := dek.New(secret.New([]byte("fedcba9876543210fedcba9876543210")))
		if err != nil {
			b.Fatal(err)
		}
		if err := ours.db.Checkpoint(b.Context()); err != nil {
			b.Fatal(err)
		}
		n := 0
		to := func(x *bench) string {
			n++
			return fmt.Sprintf("%s.copy%d", x.file.Path, n)
		}
		benchratio.Compare(b, benchratio.Computing, benchratio.AtMost(1.5), func() {
			if err := (Driver{}).Backup(b.Context(), ours.file, File{Path: to(ours), Key: other}, nil); err != nil {
				b.Fatal(err)
			}
		}, func() {
			plain.exec("VACUUM INTO '" + to(plain) + "'")
			ours.reseal()
		})
	})
}
