// Package sqlcipher opens, copies and verifies the databases of the stores.
// It is the only importer of the SQL driver beside package cipher: another
// SQLCipher 4 can take its place behind Engine, since the files are the
// standard ones (storage.md sections 3 and 16).
package sqlcipher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// PageSize is the page size of every encrypted database (storage.md section 3).
const PageSize = 4096

// Errors that a caller decides on. What they wrap never contains a key, SQL
// text or a row.
var (
	ErrKey         = errors.New("sqlcipher: the file does not open with the key: another key, or its first page is damaged")
	ErrDamaged     = errors.New("sqlcipher: the file is damaged")
	ErrPlaintext   = errors.New("sqlcipher: the file is plaintext")
	ErrNotVerified = errors.New("sqlcipher: the connection is not what was asked for")
	ErrFull        = errors.New("sqlcipher: the disk is full")
	ErrReadOnly    = errors.New("sqlcipher: the disk or the file is read-only")
	ErrIO          = errors.New("sqlcipher: the disk reports an error")
	ErrBusy        = errors.New("sqlcipher: the file is locked by another connection")
	ErrDiffers     = errors.New("sqlcipher: the copy differs from its source")
)

// File is a database file and the key it is encrypted with; no key means
// plaintext.
type File struct {
	Path string
	Key  dek.Key
}

// Encrypted reports whether the file has a key.
func (f File) Encrypted() bool { return !f.Key.IsZero() }

// Progress is told how much of a copy is done. It is called from one
// goroutine at a time.
type Progress func(done, total int64)

// Engine is what the stores need of an SQL library.
type Engine interface {
	// Open opens an existing file, or creates it when asked to, and returns
	// only a database that was verified to be what File says.
	Open(ctx context.Context, f File, o Options) (*DB, error)
	// Backup copies src page by page into the new file dst. Both are
	// encrypted, or both plaintext.
	Backup(ctx context.Context, src, dst File, p Progress) error
	// Export copies src into the new file dst. One is encrypted, the other
	// plaintext.
	Export(ctx context.Context, src, dst File, p Progress) error
	// Verify reads all of a file that nobody else has open.
	Verify(ctx context.Context, f File) (Report, error)
}

// Driver is the Engine over go-sqlcipher. It is safe for concurrent use.
type Driver struct{ Disk disk.Disk }

// Options say how a file is opened.
type Options struct {
	// Create makes the file if it is missing.
	Create bool
	// Readers is how many read-only connections there may be beside the one
	// that writes.
	Readers int
	// Durable makes every commit reach the disk before it returns, for
	// migration and rotation. Otherwise a power cut may lose the last
	// commits, but a killed process loses none.
	Durable bool
	// Confine, when set, is applied to every connection before it is used.
	Confine func(*Conn) error
}

// DB is an open database: one connection that writes, and readers beside it.
// It is safe for concurrent use.
type DB struct {
	// Write is the only connection that changes anything. Its transactions
	// take the write lock when they begin.
	Write *sql.DB
	// Read may not write. It is Write when there are no readers.
	Read *sql.DB
}

// Close closes the readers, has the library note what it learned for its
// query plans, and closes the writer last.
func (db *DB) Close() error {
	var err error
	if db.Read != db.Write {
		err = db.Read.Close()
	}
	_, optimizeErr := db.Write.ExecContext(context.Background(), "PRAGMA optimize")
	return errors.Join(err, Classify(optimizeErr), db.Write.Close())
}

// Abandon closes without writing anything more than closing must.
func (db *DB) Abandon() error {
	var err error
	if db.Read != db.Write {
		err = db.Read.Close()
	}
	return errors.Join(err, db.Write.Close())
}

// Checkpoint moves the write-ahead log into the file and truncates it.
func (db *DB) Checkpoint(ctx context.Context) error {
	var busy, logged, moved int
	if err := db.Write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &logged, &moved); err != nil {
		return Classify(err)
	}
	if busy != 0 {
		return ErrBusy
	}
	return nil
}

// Tx runs do in one transaction of the writing connection and commits if it
// returns nil. A panic rolls back too.
func (db *DB) Tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := db.Write.BeginTx(ctx, nil)
	if err != nil {
		return Classify(err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := do(tx); err != nil {
		return err
	}
	return Classify(tx.Commit())
}

// Classify turns an error of the driver into one of ours where a caller can
// decide on it. Others and nil are returned as they are.
func Classify(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	var kind error
	switch e.Code {
	case sqlite3.ErrNotADB:
		kind = ErrKey
	case sqlite3.ErrCorrupt:
		kind = ErrDamaged
	case sqlite3.ErrFull:
		kind = ErrFull
	case sqlite3.ErrReadonly:
		kind = ErrReadOnly
	case sqlite3.ErrIoErr:
		kind = ErrIO
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		kind = ErrBusy
	default:
		// sqlcipher_export passes on what happened as text alone.
		if !strings.Contains(e.Error(), "disk is full") {
			return err
		}
		kind = ErrFull
	}
	return fmt.Errorf("%w (code %d)", kind, int(e.ExtendedCode))
}
