package sqlcipher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/storage/disk"
)

// backupPages is how many pages are copied between two looks at the context.
const backupPages = 256

// exportPoll is how often the growing copy is measured for its progress.
const exportPoll = 100 * time.Millisecond

// settle is applied to a new copy so that a crash cannot leave half of it
// behind a name: everything is written before the file is used.
const settle = "PRAGMA synchronous = FULL"

// bare opens one connection without the policy: no write-ahead log, so that a
// copy is one file.
func bare(ctx context.Context, f File) (*sql.DB, error) {
	if err := ownLogs(f); err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{file: f, bare: true})
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(Classify(err), db.Close())
	}
	return db, nil
}

// fresh creates the empty file of a copy and returns how to remove it and
// what SQLite left beside it.
func (d Driver) fresh(f File) (remove func() error, err error) {
	file, err := d.Disk.Create(f.Path)
	if err != nil {
		return nil, err
	}
	remove = func() error {
		errs := []error{d.Disk.Remove(f.Path)}
		for _, path := range Sidecars(f.Path) {
			errs = append(errs, d.Disk.Remove(path))
		}
		return errors.Join(errs...)
	}
	if err := file.Close(); err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}

// Backup implements Engine. The copy keeps user_version, application_id and
// rowids; its pages are encrypted anew under the key of dst.
func (d Driver) Backup(ctx context.Context, src, dst File, p Progress) (err error) {
	if src.Encrypted() != dst.Encrypted() {
		return fmt.Errorf("%w: a backup keeps the format", ErrNotVerified)
	}
	from, err := bare(ctx, src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	remove, err := d.fresh(dst)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	to, err := bare(ctx, dst)
	if err != nil {
		return err
	}
	err = backup(ctx, from, to, p)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return d.finish(dst)
}

func backup(ctx context.Context, from, to *sql.DB, p Progress) error {
	if _, err := to.ExecContext(ctx, settle); err != nil {
		return Classify(err)
	}
	return withConn(ctx, from, func(src *sqlite3.SQLiteConn) error {
		return withConn(ctx, to, func(dst *sqlite3.SQLiteConn) error {
			b, err := dst.Backup("main", src, "main")
			if err != nil {
				return Classify(err)
			}
			for done := false; !done && err == nil; {
				if err = ctx.Err(); err == nil {
					done, err = b.Step(backupPages)
				}
				if p != nil && err == nil {
					p(int64(b.PageCount()-b.Remaining())*PageSize, int64(b.PageCount())*PageSize)
				}
			}
			return Classify(errors.Join(err, b.Finish()))
		})
	})
}

func withConn(ctx context.Context, db *sql.DB, do func(*sqlite3.SQLiteConn) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	err = conn.Raw(func(raw any) error {
		sc, ok := raw.(*sqlite3.SQLiteConn)
		if !ok {
			return ErrNotVerified
		}
		return do(sc)
	})
	return errors.Join(err, conn.Close())
}

// finish makes a closed copy durable and proves its header.
func (d Driver) finish(f File) error {
	got, _, err := Detect(f.Path)
	if err != nil {
		return err
	}
	if want := formatFor(f); got != want {
		return fmt.Errorf("%w: the copy is %v, not %v", ErrNotVerified, got, want)
	}
	if err := d.Disk.SyncFile(f.Path); err != nil {
		return err
	}
	return d.Disk.SyncDir(filepath.Dir(f.Path))
}

// Export implements Engine. The encrypted side is always the connection's
// main database and the plaintext side is attached with an empty key, so no
// key appears in SQL. user_version and application_id, which the library
// forgets, are carried over, and full-text indexes that point at rows by
// number are rebuilt, since the numbers may change.
func (d Driver) Export(ctx context.Context, src, dst File, p Progress) (err error) {
	if src.Encrypted() == dst.Encrypted() {
		return fmt.Errorf("%w: an export changes the format", ErrNotVerified)
	}
	if _, err := disk.Regular(src.Path); err != nil {
		return err
	}
	remove, err := d.fresh(dst)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	stop := measure(src.Path, dst.Path, p)
	if err = export(ctx, src, dst); err == nil {
		err = rebuildIndexes(ctx, dst)
	}
	stop()
	if err != nil {
		return err
	}
	return d.finish(dst)
}

func export(ctx context.Context, src, dst File) (err error) {
	sealed, plain, into, from := dst, src, "main", "other"
	if src.Encrypted() {
		sealed, plain, into, from = src, dst, "other", "main"
	}
	db, err := bare(ctx, sealed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "ATTACH DATABASE ? AS other KEY ''", plain.Path); err != nil {
		return Classify(err)
	}
	for _, s := range []string{settle, "PRAGMA other.synchronous = FULL", "PRAGMA trusted_schema = OFF"} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return Classify(err)
		}
	}
	var ignored any
	if err := db.QueryRowContext(ctx, "SELECT sqlcipher_export(?, ?)", into, from).Scan(&ignored); err != nil {
		return Classify(err)
	}
	for _, name := range []string{"user_version", "application_id"} {
		var value int64
		if err := db.QueryRowContext(ctx, "PRAGMA "+from+"."+name).Scan(&value); err != nil {
			return Classify(err)
		}
		if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA %s.%s = %d", into, name, value)); err != nil {
			return Classify(err)
		}
	}
	return nil
}

// rebuildIndexes rebuilds the full-text indexes over other tables' rows, on a
// connection of its own: the one that exported does not know them yet.
func rebuildIndexes(ctx context.Context, f File) (err error) {
	db, err := bare(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, settle); err != nil {
		return Classify(err)
	}
	tables, err := fullText(ctx, db)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !t.external {
			continue
		}
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s(%s) VALUES('rebuild')", quote(t.name), quote(t.name))); err != nil {
			return Classify(err)
		}
	}
	return nil
}

// fullTextTable is one FTS5 table of a schema.
type fullTextTable struct {
	name     string
	external bool // its rows are another table's
}

func fullText(ctx context.Context, db *sql.DB) ([]fullTextTable, error) {
	rows, err := db.QueryContext(ctx, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'")
	if err != nil {
		return nil, Classify(err)
	}
	defer func() { _ = rows.Close() }() // Err is looked at
	var list []fullTextTable
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, err
		}
		lower := strings.ToLower(text)
		if strings.Contains(lower, "using fts5") {
			list = append(list, fullTextTable{name, strings.Contains(lower, "content=") || strings.Contains(lower, "content =")})
		}
	}
	return list, Classify(rows.Err())
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// measure reports the size of the growing copy until stop is called.
func measure(src, dst string, p Progress) (stop func()) {
	info, err := os.Stat(src)
	if p == nil || err != nil {
		return func() {}
	}
	total, quit, done := info.Size(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(exportPoll)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				if grown, err := os.Stat(dst); err == nil {
					p(min(grown.Size(), total), total)
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		p(total, total)
	}
}
