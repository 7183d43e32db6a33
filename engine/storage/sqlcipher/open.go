package sqlcipher

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/atomicfile"
	"osaurus/engine/storage/cipher"
	"osaurus/engine/storage/disk"
)

// busyMillis is how long a connection waits for another's lock.
const busyMillis = 5000

// policy are the settings of every connection after its key was verified
// (storage.md sections 3 and 16.2).
var policy = []string{
	"PRAGMA journal_mode = WAL",
	"PRAGMA temp_store = MEMORY",
	"PRAGMA cache_size = -20000",
	"PRAGMA mmap_size = 0",
	"PRAGMA foreign_keys = ON",
	"PRAGMA trusted_schema = OFF",
	"PRAGMA cell_size_check = ON",
	"PRAGMA secure_delete = FAST",
}

// Conn is one connection, handed to Options.Confine.
type Conn struct{ *sqlite3.SQLiteConn }

// connector opens connections to one file. The key stands in the File and
// reaches the library in C memory; the DSN holds a path and flags.
type connector struct {
	file     File
	options  Options
	readOnly bool
	bare     bool // no policy: for copies, which bring their own settings
}

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) dsn() string {
	// mode=rw: a missing file is never created by the library, which would
	// choose its own permissions.
	u := url.URL{Scheme: "file", OmitHost: true, Path: c.file.Path}
	return u.String() + fmt.Sprintf("?mode=rw&_txlock=immediate&_busy_timeout=%d", busyMillis)
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	var conn driver.Conn
	open := func() (err error) {
		conn, err = (&sqlite3.SQLiteDriver{}).Open(c.dsn())
		return err
	}
	var err error
	if c.file.Encrypted() {
		err = cipher.Keyed(c.file.Key.Bytes(), open)
	} else {
		err = cipher.Unkeyed(open)
	}
	if err != nil {
		return nil, Classify(err)
	}
	sc, ok := conn.(*sqlite3.SQLiteConn)
	if !ok {
		return nil, errors.Join(ErrNotVerified, conn.Close())
	}
	if err := c.prepare(sc); err != nil {
		return nil, errors.Join(Classify(err), sc.Close())
	}
	return sc, nil
}

func (c connector) prepare(sc *sqlite3.SQLiteConn) error {
	if _, err := queryOne(sc, "SELECT count(*) FROM sqlite_master"); err != nil {
		return err
	}
	if err := c.verify(sc); err != nil || c.bare {
		return err
	}
	if err := execAll(sc, policy); err != nil {
		return err
	}
	settings := []string{"PRAGMA synchronous = NORMAL"}
	if c.options.Durable {
		settings = []string{"PRAGMA synchronous = FULL", "PRAGMA fullfsync = ON", "PRAGMA checkpoint_fullfsync = ON"}
	}
	if c.readOnly {
		settings = append(settings, "PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = ON")
	}
	if err := execAll(sc, settings); err != nil {
		return err
	}
	if mode, err := queryOne(sc, "PRAGMA journal_mode"); err != nil || mode != "wal" {
		return errors.Join(err, fmt.Errorf("%w: the journal is not the write-ahead log", ErrNotVerified))
	}
	if c.options.Confine != nil {
		return c.options.Confine(&Conn{sc})
	}
	return nil
}

// verify asks the connection what it is: a library without a codec, or with
// another provider, accepts every key and writes plaintext without a word.
func (c connector) verify(sc *sqlite3.SQLiteConn) error {
	if !c.file.Encrypted() {
		return nil
	}
	for _, want := range []struct{ pragma, prefix string }{
		{"cipher_version", "4."}, {"cipher_provider", cipher.Provider}, {"cipher_page_size", "4096"}, {"kdf_iter", "256000"},
	} {
		if got, err := queryOne(sc, "PRAGMA "+want.pragma); err != nil || !strings.HasPrefix(got, want.prefix) {
			return errors.Join(err, fmt.Errorf("%w: %s is %q", ErrNotVerified, want.pragma, got))
		}
	}
	return nil
}

func execAll(sc *sqlite3.SQLiteConn, statements []string) error {
	for _, s := range statements {
		if _, err := sc.Exec(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// queryOne returns the first column of the first row as text, "" without one.
func queryOne(sc *sqlite3.SQLiteConn, query string) (string, error) {
	rows, err := sc.Query(query, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }() // its error came from Next
	dest := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(dest); err != nil {
		return "", err
	}
	if text, ok := dest[0].([]byte); ok {
		return string(text), nil
	}
	return fmt.Sprint(dest[0]), nil
}

// Open implements Engine. The file's mode becomes 0600.
func (d Driver) Open(ctx context.Context, f File, o Options) (*DB, error) {
	format, _, err := Detect(f.Path)
	if err != nil {
		return nil, err
	}
	switch {
	case format == Missing && o.Create, format == Empty && o.Create:
		if err := d.create(ctx, f, format); err != nil {
			return nil, err
		}
	case format == Missing:
		return nil, os.ErrNotExist
	case format == Plaintext && f.Encrypted():
		return nil, ErrPlaintext
	case format == Encrypted && !f.Encrypted():
		return nil, ErrKey
	}
	before, err := disk.Regular(f.Path)
	if err != nil {
		return nil, err
	}
	if err := ownLogs(f); err != nil {
		return nil, err
	}
	if err := os.Chmod(f.Path, atomicfile.Mode); err != nil {
		return nil, err
	}
	db, err := open(ctx, f, o)
	if err != nil {
		return nil, err
	}
	// The library follows links: what it opened must be what was looked at.
	if after, err := disk.Regular(f.Path); err != nil || !os.SameFile(before, after) {
		return nil, errors.Join(disk.ErrUnsafe, err, db.Abandon())
	}
	return db, nil
}

func open(ctx context.Context, f File, o Options) (*DB, error) {
	// One connection, kept for the life of the DB: two that write and
	// checkpoint at once can damage a file in this version of SQLite.
	db := &DB{Write: sql.OpenDB(connector{file: f, options: o})}
	db.Write.SetMaxOpenConns(1)
	db.Read = db.Write
	if err := db.Write.PingContext(ctx); err != nil {
		return nil, errors.Join(Classify(err), db.Abandon())
	}
	if o.Readers > 0 {
		db.Read = sql.OpenDB(connector{file: f, options: o, readOnly: true})
		db.Read.SetMaxOpenConns(o.Readers)
		db.Read.SetMaxIdleConns(o.Readers)
	}
	return db, nil
}

// create makes a new database and proves, once it is closed, that its header
// is not plaintext if it has a key.
func (d Driver) create(ctx context.Context, f File, format Format) (err error) {
	if format == Missing {
		if err := d.Disk.MkdirAll(filepath.Dir(f.Path)); err != nil {
			return err
		}
		file, err := d.Disk.Create(f.Path)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	db, err := open(ctx, f, Options{Durable: true})
	if err != nil {
		return err
	}
	_, err = db.Write.ExecContext(ctx, "PRAGMA user_version = 0")
	if err = errors.Join(Classify(err), db.Abandon()); err != nil {
		return err
	}
	got, _, err := Detect(f.Path)
	if err != nil {
		return err
	}
	if want := formatFor(f); got != want {
		return fmt.Errorf("%w: a new file is %v, not %v", ErrNotVerified, got, want)
	}
	return d.Disk.SyncDir(filepath.Dir(f.Path))
}

func formatFor(f File) Format {
	if f.Encrypted() {
		return Encrypted
	}
	return Plaintext
}

var _ Engine = Driver{Disk: disk.Disk{}}
