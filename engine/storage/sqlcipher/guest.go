package sqlcipher

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/storage/cipher"
)

// Guest runs SQL that is not ours, of plugins and agents, on the one
// connection of a database whose Options.Confine is its Confine: an authorizer
// refuses whatever leaves the database or could end the process, and limits
// bound what a statement takes (storage.md section 16.2). Our own statements
// on the same connection are not confined.
type Guest struct {
	// Own reports whether a table is ours: a guest may read it and no more.
	Own func(table string) bool
	// Transactions lets a guest begin and end transactions itself.
	Transactions bool
	// Limits are those of the constants below where they are zero.
	Limits Limits

	inside  atomic.Bool
	refused atomic.Pointer[string]
}

// Limits of one statement.
type Limits struct {
	Pages  int           // of the database, PageSize bytes each
	Value  int           // bytes of a text or blob, and of the statement
	Rows   int           // of an answer; there may be more
	Answer int           // bytes of an answer
	Time   time.Duration // of a statement
	Memory int64         // bytes that SQLite may take beyond what it had
}

// The limits of storage.md section 2, and ours where it names none.
const (
	MaxPages  = 100 << 20 / PageSize
	MaxValue  = 16 << 20
	MaxRows   = 1000
	MaxAnswer = 32 << 20
	MaxTime   = 5 * time.Second
	MaxMemory = 128 << 20

	// watchEvery is how often a running statement's memory is looked at.
	watchEvery = 20 * time.Millisecond
	// maxDepth and maxColumns keep what is compiled small.
	maxDepth, maxColumns, maxCompound, maxVariables, maxPattern = 100, 200, 50, 1000, 1000
)

// The numbers of SQLite's limits (sqlite.org/c3ref/c_limit_attached.html).
const (
	limitLength = iota
	limitSQLLength
	limitColumn
	limitExprDepth
	limitCompoundSelect
	_ // instructions of a compiled statement
	_ // arguments of a function
	limitAttached
	limitPatternLength
	limitVariableNumber
	limitTriggerDepth
	limitWorkerThreads
)

// Errors of a guest's statement. The text of SQLite's own errors is the
// guest's to see: it is about its own statement.
var (
	ErrRefused    = errors.New("not allowed here")
	ErrStatements = errors.New("one statement at a time")
	ErrParameters = errors.New("another number of parameters than the statement has")
	ErrTime       = errors.New("the statement took too long")
	ErrMemory     = errors.New("the statement took too much memory")
	ErrAnswer     = errors.New("the answer is too large")
)

// Rows is the answer to a query: integers as int64, reals as float64, text as
// string, blobs as []byte, and nil, as the database has them.
type Rows struct {
	Columns   []string
	Rows      [][]any
	Truncated bool // there were more
}

func (g *Guest) limits() Limits {
	l := g.Limits
	l.Pages, l.Value, l.Rows, l.Answer = cmp.Or(l.Pages, MaxPages), cmp.Or(l.Value, MaxValue), cmp.Or(l.Rows, MaxRows), cmp.Or(l.Answer, MaxAnswer)
	l.Time, l.Memory = cmp.Or(l.Time, MaxTime), cmp.Or(l.Memory, MaxMemory)
	return l
}

// Confine prepares a connection.
func (g *Guest) Confine(c *Conn) error {
	l := g.limits()
	c.SetLimit(limitLength, l.Value)
	c.SetLimit(limitSQLLength, l.Value)
	c.SetLimit(limitAttached, 0)
	c.SetLimit(limitExprDepth, maxDepth)
	c.SetLimit(limitTriggerDepth, maxDepth)
	c.SetLimit(limitColumn, maxColumns)
	c.SetLimit(limitCompoundSelect, maxCompound)
	c.SetLimit(limitVariableNumber, maxVariables)
	c.SetLimit(limitPatternLength, maxPattern)
	c.SetLimit(limitWorkerThreads, 0)
	if err := execAll(c.SQLiteConn, []string{fmt.Sprintf("PRAGMA max_page_count = %d", l.Pages), "PRAGMA recursive_triggers = OFF"}); err != nil {
		return err
	}
	c.RegisterAuthorizer(g.authorize)
	return nil
}

// pragmas are those a guest may read.
var pragmas = map[string]bool{"table_info": true, "table_xinfo": true, "index_list": true, "index_info": true, "foreign_key_list": true, "user_version": true}

// functions are those a guest may call. Left out is what leaves the database
// (load_extension, sqlcipher_export, whose null pointer is CVE-2021-3119),
// shows memory (fts3_tokenizer, fts5), keeps users (auth_*) or writes logs.
// ALTER TABLE calls sqlite_rename_* itself; nobody else can.
var functions = func() map[string]bool {
	all := map[string]bool{}
	for _, name := range strings.Fields(`
		abs changes char coalesce glob hex ifnull iif instr last_insert_rowid length like likelihood likely lower ltrim max min nullif printf quote
		random randomblob replace round rtrim substr total_changes trim typeof unicode unlikely upper zeroblob sqlite_version
		avg count group_concat sum total
		date time datetime julianday strftime current_date current_time current_timestamp
		cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
		json json_array json_array_length json_extract json_group_array json_group_object json_insert json_object json_patch json_quote
		json_remove json_replace json_set json_type json_valid
		sqlite_rename_column sqlite_rename_table sqlite_rename_test`) {
		all[name] = true
	}
	return all
}()

// authorize is asked about each thing a statement would do when it is
// compiled. In doubt it says no.
func (g *Guest) authorize(op int, first, second, _ string) int {
	if !g.inside.Load() || g.allows(op, first, second) {
		return sqlite3.SQLITE_OK
	}
	if op == sqlite3.SQLITE_FUNCTION {
		first = second
	}
	what := strings.TrimSpace(actionName(op) + " " + first)
	g.refused.CompareAndSwap(nil, &what)
	return sqlite3.SQLITE_DENY
}

// recursive is SQLITE_RECURSIVE, which the driver does not name.
const recursive = 33

// actionName is what is refused, for who tried it.
func actionName(op int) string {
	switch op {
	case sqlite3.SQLITE_ATTACH:
		return "ATTACH"
	case sqlite3.SQLITE_DETACH:
		return "DETACH"
	case sqlite3.SQLITE_PRAGMA:
		return "PRAGMA"
	case sqlite3.SQLITE_FUNCTION:
		return "function"
	case sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE:
		return "virtual table"
	case sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT:
		return "transaction"
	case sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE:
		return "writing"
	}
	return "statement"
}

func (g *Guest) allows(op int, first, second string) bool {
	switch op {
	case sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, recursive:
		return true
	case sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_DROP_VIEW, sqlite3.SQLITE_REINDEX:
		return !g.own(first)
	case sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_DROP_TRIGGER:
		return !g.own(first) && !g.own(second)
	case sqlite3.SQLITE_FUNCTION:
		return functions[strings.ToLower(second)]
	case sqlite3.SQLITE_PRAGMA:
		// user_version takes an argument; the others name a table in it.
		return pragmas[strings.ToLower(first)] && (second == "" || !strings.EqualFold(first, "user_version"))
	case sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT:
		return g.Transactions
	}
	return false
}

func (g *Guest) own(table string) bool { return g.Own != nil && g.Own(table) }

// Exec runs one statement that answers nothing. It returns how many rows it
// changed and the rowid inserted last.
func (g *Guest) Exec(ctx context.Context, db *DB, query string, args []any) (changes, last int64, err error) {
	err = g.run(ctx, db, query, args, func(ctx context.Context, s *sqlite3.SQLiteStmt, values []driver.NamedValue) error {
		result, err := s.ExecContext(ctx, values)
		if err != nil {
			return err
		}
		changes, _ = result.RowsAffected() // never fails
		last, _ = result.LastInsertId()    // never fails
		return nil
	})
	return changes, last, err
}

// Query runs one statement and collects its answer.
func (g *Guest) Query(ctx context.Context, db *DB, query string, args []any) (out Rows, err error) {
	err = g.run(ctx, db, query, args, func(ctx context.Context, s *sqlite3.SQLiteStmt, values []driver.NamedValue) error {
		rows, err := s.QueryContext(ctx, values)
		if err != nil {
			return err
		}
		return errors.Join(g.collect(rows, &out), rows.Close())
	})
	return out, err
}

func (g *Guest) collect(rows driver.Rows, out *Rows) error {
	l, size := g.limits(), 0
	out.Columns, out.Rows = rows.Columns(), [][]any{}
	if err := asStored(rows, len(out.Columns)); err != nil {
		return err
	}
	row := make([]driver.Value, len(out.Columns))
	for {
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(out.Rows) == l.Rows {
			out.Truncated = true
			return nil
		}
		values := make([]any, len(row))
		for i, v := range row {
			values[i] = v
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
			size += 16
		}
		if size > l.Answer {
			return ErrAnswer
		}
		out.Rows = append(out.Rows, values)
	}
}

// run compiles one statement on the connection, confined, and passes it to do.
func (g *Guest) run(ctx context.Context, db *DB, query string, args []any, do func(context.Context, *sqlite3.SQLiteStmt, []driver.NamedValue) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return withConn(ctx, db.Write, func(c *sqlite3.SQLiteConn) error {
		g.refused.Store(nil)
		g.inside.Store(true)
		defer g.inside.Store(false)
		ctx, stop := g.watched(ctx)
		defer stop()
		err := statement(c, query, args, func(s *sqlite3.SQLiteStmt, values []driver.NamedValue) error { return do(ctx, s, values) })
		if what := g.refused.Load(); err != nil && what != nil {
			return fmt.Errorf("%s: %w", *what, ErrRefused)
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		return err
	})
}

// watched ends ctx when the statement takes more time or memory than it may.
func (g *Guest) watched(ctx context.Context) (context.Context, func()) {
	l := g.limits()
	ctx, stopTime := context.WithTimeoutCause(ctx, l.Time, ErrTime)
	ctx, end := context.WithCancelCause(ctx)
	before := cipher.MemoryUsed()
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if cipher.MemoryUsed()-before > l.Memory {
					end(ErrMemory)
				}
			}
		}
	}()
	return ctx, func() { end(nil); stopTime() }
}

func statement(c *sqlite3.SQLiteConn, query string, args []any, do func(*sqlite3.SQLiteStmt, []driver.NamedValue) error) (err error) {
	if strings.Contains(query, "\x00") {
		return ErrStatements // the library would stop reading there
	}
	prepared, err := c.Prepare(query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, prepared.Close()) }()
	s, ok := prepared.(*sqlite3.SQLiteStmt)
	if !ok {
		return ErrNotVerified
	}
	tail, err := unexported[string](s, "t")
	if err != nil {
		return err
	}
	if !onlyComments(*tail) {
		return ErrStatements
	}
	if s.NumInput() != len(args) {
		return fmt.Errorf("%w: %d given, %d expected", ErrParameters, len(args), s.NumInput())
	}
	values := make([]driver.NamedValue, len(args))
	for i, v := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return do(s, values)
}

// unexported returns a field of the driver that it does not show: what
// follows a statement, and how values are turned into others. The driver is
// pinned; a test fails if it changes.
func unexported[T any](of any, name string) (*T, error) {
	v := reflect.ValueOf(of)
	if v.Kind() != reflect.Pointer {
		return nil, ErrNotVerified
	}
	field := v.Elem().FieldByName(name)
	if !field.IsValid() || field.Type() != reflect.TypeFor[T]() {
		return nil, fmt.Errorf("%w: the driver has no field %s", ErrNotVerified, name)
	}
	return (*T)(unsafe.Pointer(field.UnsafeAddr())), nil //nolint:gosec // the type was compared
}

// asStored has rows yield what the database has. The driver would turn the
// values of columns declared as dates and booleans into others.
func asStored(rows driver.Rows, columns int) error {
	types, err := unexported[[]string](rows, "decltype")
	if err == nil {
		*types = make([]string, columns)
	}
	return err
}

// onlyComments reports whether nothing is left to run in text.
func onlyComments(text string) bool {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f;")
		var end string
		switch {
		case text == "":
			return true
		case strings.HasPrefix(text, "--"):
			end = "\n"
		case strings.HasPrefix(text, "/*"):
			text, end = text[2:], "*/"
		default:
			return false
		}
		_, rest, closed := strings.Cut(text, end)
		if !closed {
			return true
		}
		text = rest
	}
}
