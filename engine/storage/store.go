package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"osaurus/engine/fault"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

// Issue is a store that stays closed, and why. As an error it carries the
// fault.Code of its kind.
type Issue struct {
	Store ID
	Kind  IssueKind
	cause error
}

// Error implements error. It names the store, never its content.
func (i Issue) Error() string {
	if _, trouble := DiskTrouble(i.cause); trouble != "" {
		return fmt.Sprintf("store %s: %s", i.Store, trouble)
	}
	return fmt.Sprintf("store %s: %s", i.Store, i.Kind)
}

// Unwrap returns the code of the kind and the cause.
func (i Issue) Unwrap() []error { return []error{i.Kind.code(), i.cause} }

// Options say how a store is opened.
type Options struct {
	// Readers is how many may read at once beside the writer.
	Readers int
	// Setup brings the schema up to date each time the database was opened.
	// Its errors become issues: fault.StoreForwardVersion for a database of
	// a newer version, any other a failed migration.
	Setup func(context.Context, *sqlcipher.DB) error
	// Confine, when set, is applied to every connection.
	Confine func(*sqlcipher.Conn) error
}

// Store is one database. It opens at its first use and again after an
// operation closed it. It is safe for concurrent use.
type Store struct {
	s  *Storage
	id ID
	o  Options

	mu sync.Mutex
	db *sqlcipher.DB
}

// Store returns the store of an id, the same one each time. The options of
// the first call stay.
func (s *Storage) Store(id ID, o Options) (*Store, error) {
	if id.path() == "" {
		return nil, fault.WithText(fault.Usage, "no such store")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stores[id] == nil {
		s.stores[id] = &Store{s: s, id: id, o: o}
	}
	return s.stores[id], nil
}

// Use opens the database if it is not open and runs do with it. It waits
// while an operation over all stores runs, and must not be called from do.
func (st *Store) Use(ctx context.Context, do func(*sqlcipher.DB) error) error {
	if err := st.s.gate.enter(ctx); err != nil {
		return err
	}
	defer st.s.gate.leave()
	db, err := st.open(ctx)
	if err != nil {
		return err
	}
	return do(db)
}

func (st *Store) open(ctx context.Context) (*sqlcipher.DB, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.db != nil {
		return st.db, nil
	}
	db, err := st.s.openStore(ctx, st.id, st.o)
	if err == nil && st.o.Setup != nil {
		if err = st.o.Setup(ctx, db); err != nil {
			err = errors.Join(Issue{st.id, setupKind(err), err}, db.Abandon())
			st.s.inUse.Delete(st.id)
		}
	}
	st.s.note(st.id, err)
	if err != nil {
		return nil, err
	}
	st.db = db
	return db, nil
}

func setupKind(err error) IssueKind {
	switch {
	case errors.Is(err, fault.StoreForwardVersion):
		return IssueForwardVersion
	case errors.Is(err, sqlcipher.ErrKey), errors.Is(err, sqlcipher.ErrDamaged):
		return IssueCorrupt
	}
	return IssueMigration
}

func (st *Store) close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.db == nil {
		return nil
	}
	db := st.db
	st.db = nil
	defer st.s.inUse.Delete(st.id)
	return db.Close()
}

// note keeps the issue of a store that did not open, or clears it.
func (s *Storage) note(id ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var issue Issue
	switch {
	case err == nil:
		delete(s.issues, id)
	case errors.As(err, &issue):
		if s.issues[id].Kind != issue.Kind {
			s.log("storage.issue", slog.String("store", string(id)), slog.String("kind", string(issue.Kind)))
		}
		s.issues[id] = issue
	}
}

// Issues returns what stands in the way of stores, by store.
func (s *Storage) Issues() []Issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Issue, 0, len(s.issues))
	for _, issue := range s.issues {
		list = append(list, issue)
	}
	slices.SortFunc(list, func(a, b Issue) int { return strings.Compare(string(a.Store), string(b.Store)) })
	return list
}

// sniff returns the format of a store. A file this process has open is not
// opened a second time: closing it would drop the locks that keep other
// programs from taking its log away (storage.md section 3).
func (s *Storage) sniff(id ID) (sqlcipher.Format, error) {
	path := s.file(id.path())
	known, _ := s.inUse.Load(id)
	if format, open := known.(sqlcipher.Format); open {
		_, err := disk.Regular(path)
		if missing(err) {
			return sqlcipher.Missing, nil
		}
		return format, err
	}
	format, _, err := sqlcipher.Detect(path)
	return format, err
}

// isOpen reports whether this process has the database open, with the key its
// row names.
func (s *Storage) isOpen(id ID) bool {
	_, open := s.inUse.Load(id)
	return open
}

// detect is sniff for those who need no reason: what cannot be looked at has
// no format.
func (s *Storage) detect(id ID) sqlcipher.Format {
	format, err := s.sniff(id)
	if err != nil || s.safe(id) != nil {
		return 0
	}
	return format
}

// safe refuses a store one of whose folders below the root is a link: the
// library would follow it out of the root.
func (s *Storage) safe(id ID) error { return s.safeDir(path.Dir(id.path())) }

func (s *Storage) safeDir(rel string) error {
	dir := s.root
	for part := range strings.SplitSeq(rel, "/") {
		if part == "." {
			continue
		}
		dir = filepath.Join(dir, part)
		if err := disk.Folder(dir); err != nil && !missing(err) {
			return err
		}
	}
	return nil
}

// look gathers what decide needs. The caller holds s.mu.
func (s *Storage) look(id ID) (situation, error) {
	path := s.file(id.path())
	r, known := s.manifest.Stores[id]
	sit := situation{
		posture: s.posture, key: s.keyState, trusted: s.trusted,
		recorded: known && r.State == rowReady, sealed: r.Format == PostureEncrypted,
	}
	if sit.recorded && sit.sealed {
		sit.rowKey = s.rowKey(r.KeyID)
	}
	err := s.safe(id)
	if err == nil {
		sit.format, err = s.sniff(id)
	}
	if errors.Is(err, disk.ErrUnsafe) {
		sit.unsafe = true
		return sit, nil
	}
	for _, side := range sqlcipher.Sidecars(path) {
		sit.beside = sit.beside || exists(side)
	}
	return sit, err
}

func (s *Storage) rowKey(id dek.ID) rowKey {
	for i, key := range s.keys {
		switch {
		case key.ID() != id:
		case i == 0:
			return rowKeyCurrent
		default:
			return rowKeyOther
		}
	}
	return rowKeyUnknown
}

// openStore does what decide says.
func (s *Storage) openStore(ctx context.Context, id ID, o Options) (*sqlcipher.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, Issue{id, IssueLocked, fault.KeystoreLocked}
	}
	sit, err := s.look(id)
	if err != nil {
		return nil, Issue{id, IssueUnknown, err}
	}
	act, kind := decide(sit)
	if act == refuse {
		return nil, Issue{id, kind, s.keyError()}
	}
	if act == encryptThen || act == create && s.posture == PostureEncrypted {
		if err := s.ensureKey(ctx); err != nil {
			return nil, Issue{id, IssueLocked, err}
		}
	}
	switch act {
	case encryptThen:
		err = s.convert(ctx, id, dek.Key{}, s.keys[0], nil)
	case rekeyThen:
		// A crash may have come between the rename and the record.
		if err = s.convert(ctx, id, s.keyOf(id), s.keys[0], nil); errors.Is(err, sqlcipher.ErrKey) {
			act, sit.rowKey, err = openEncrypted, rowKeyNone, nil
		}
	}
	if err != nil {
		return nil, Issue{id, issueOf(err, IssueMigration), err}
	}
	db, err := s.openAs(ctx, id, o, act, sit)
	if err != nil {
		return nil, Issue{id, issueOf(err, IssueUnknown), err}
	}
	return db, nil
}

// openAs opens a file that is in the state to be opened in.
func (s *Storage) openAs(ctx context.Context, id ID, o Options, act action, sit situation) (*sqlcipher.DB, error) {
	opts := sqlcipher.Options{Create: act == create, Readers: o.Readers, Confine: o.Confine}
	path := s.file(id.path())
	switch {
	case act == openPlain, act == create && s.posture == PosturePlaintext:
		return s.openWith(ctx, id, sqlcipher.File{Path: path}, opts)
	case act != openEncrypted || sit.rowKey == rowKeyCurrent:
		return s.openWith(ctx, id, sqlcipher.File{Path: path, Key: s.keys[0]}, opts)
	}
	// Not on record: whichever key fits.
	for _, key := range s.keys {
		db, err := s.openWith(ctx, id, sqlcipher.File{Path: path, Key: key}, opts)
		if !errors.Is(err, sqlcipher.ErrKey) {
			return db, err
		}
	}
	return nil, errNoKeyFits
}

// errNoKeyFits: the file may need a key that nobody has, or be damaged.
var errNoKeyFits = errors.New("storage: no key at hand opens the file")

// openWith opens a file and puts it on record: a row is creating until the
// file is there.
func (s *Storage) openWith(ctx context.Context, id ID, f sqlcipher.File, o sqlcipher.Options) (*sqlcipher.DB, error) {
	format, keyID := PosturePlaintext, dek.ID{}
	if f.Encrypted() {
		format, keyID = PostureEncrypted, f.Key.ID()
	}
	if o.Create {
		if err := s.record(id, func(r *row) { r.Format, r.KeyID, r.State = format, keyID, rowCreating }); err != nil {
			return nil, err
		}
	}
	if err := s.shed(f); err != nil && !missing(err) {
		return nil, err
	}
	db, err := s.engine.Open(ctx, f, o)
	if err != nil {
		return nil, err
	}
	if err := s.record(id, func(r *row) { r.Format, r.KeyID, r.State = format, keyID, rowReady }); err != nil {
		return nil, errors.Join(err, db.Abandon())
	}
	s.inUse.Store(id, formatOf(f))
	return db, nil
}

func formatOf(f sqlcipher.File) sqlcipher.Format {
	if f.Encrypted() {
		return sqlcipher.Encrypted
	}
	return sqlcipher.Plaintext
}

// provedKey returns the key to open a database with: the current one if it
// proves the first page, else the one on record. What is not on record may have
// any. An earlier key never counts where the record names the current one: that
// would let in a copy from before a rotation. Nobody has the database open, and
// the caller holds s.mu.
func (s *Storage) provedKey(id ID) dek.Key {
	named := s.keyOf(id)
	if named.IsZero() {
		return s.provingKey(id)
	}
	if s.proved(id, s.keys[0]) {
		return s.keys[0]
	}
	return named
}

// provingKey returns the key at hand that proves the first page of a database.
func (s *Storage) provingKey(id ID) dek.Key {
	for _, key := range s.keys {
		if s.proved(id, key) {
			return key
		}
	}
	return dek.Key{}
}

func (s *Storage) proved(id ID, key dek.Key) bool {
	return sqlcipher.Proves(sqlcipher.File{Path: s.file(id.path()), Key: key})
}

// keyOf returns the key a row names. The caller holds s.mu.
func (s *Storage) keyOf(id ID) dek.Key {
	for _, key := range s.keys {
		if key.ID() == s.manifest.Stores[id].KeyID {
			return key
		}
	}
	return dek.Key{}
}

func issueOf(err error, otherwise IssueKind) IssueKind {
	switch {
	case errors.Is(err, errNoKeyFits):
		return IssueLocked
	case errors.Is(err, sqlcipher.ErrKey), errors.Is(err, sqlcipher.ErrDamaged):
		return IssueCorrupt
	case errors.Is(err, sqlcipher.ErrPlaintext):
		return IssueUnexpectedPlaintext
	case errors.Is(err, disk.ErrUnsafe):
		return IssueUnsafePath
	}
	return otherwise
}
