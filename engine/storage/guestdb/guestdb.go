// Package guestdb runs the SQL of plugins and agents, each in an encrypted
// database of its own. Statements are confined (sqlcipher.Guest); answers are
// the JSON other hosts give (storage.md section 2). An agent's database also
// keeps a log of what was done to it, which its SQL can read and not change.
package guestdb

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/storage"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

// Limits beside those of sqlcipher.Guest.
const (
	MaxParameters = 1 << 20 // bytes of the parameters' JSON

	// SoftQuota is how full an agent's database is, in percent, when its next
	// change carries a warning, once.
	SoftQuota = 80
)

// By says who runs a statement, for an agent's log.
type By struct {
	Actor string // agent, user or system
	Run   string // the id of the run, or ""
}

// Changed is the answer to Exec.
type Changed struct {
	Changes int64  `json:"changes"`
	Last    int64  `json:"last_insert_rowid"`
	Warning string `json:"warning,omitempty"`
}

// DB is the database of one plugin or agent. It opens at its first use and is
// safe for concurrent use.
type DB struct {
	store *storage.Store
	guest *sqlcipher.Guest
	now   func() time.Time
	agent bool

	mu     sync.Mutex // one statement at a time: a guest's and its log entry
	warned bool
}

// Plugin returns the database of a plugin, which may hold transactions open
// from one statement to the next.
func Plugin(s *storage.Storage, id string) (*DB, error) {
	name, err := storage.Plugin(id)
	if err != nil {
		return nil, err
	}
	d := &DB{guest: &sqlcipher.Guest{Transactions: true}}
	d.store, err = s.Store(name, storage.Options{Confine: d.guest.Confine})
	return d, err
}

// Agent returns the database of an agent. Tables whose names begin with an
// underscore are the host's.
func Agent(s *storage.Storage, uuid string, now func() time.Time) (*DB, error) {
	name, err := storage.Agent(uuid)
	if err != nil {
		return nil, err
	}
	d := &DB{guest: &sqlcipher.Guest{Own: func(table string) bool { return strings.HasPrefix(table, "_") }}, agent: true, now: now}
	d.store, err = s.Store(name, storage.Options{Confine: d.guest.Confine, Setup: migrations.Agent.Up})
	return d, err
}

// Exec runs one statement that answers nothing. parameters is a JSON array,
// or empty.
func (d *DB) Exec(ctx context.Context, by By, query string, parameters json.RawMessage) (out Changed, err error) {
	args, err := parse(parameters)
	if err != nil {
		return Changed{}, err
	}
	err = d.use(ctx, func(db *sqlcipher.DB) (err error) {
		if !d.agent {
			out.Changes, out.Last, err = d.guest.Exec(ctx, db, query, args)
			return err
		}
		if out, err = d.logged(ctx, db, by, query, args); err == nil {
			out.Warning, err = d.quota(db)
		}
		return err
	})
	return out, err
}

// Query runs one statement and answers its rows, at most sqlcipher.MaxRows.
func (d *DB) Query(ctx context.Context, query string, parameters json.RawMessage) (Rows, error) {
	args, err := parse(parameters)
	if err != nil {
		return Rows{}, err
	}
	var out sqlcipher.Rows
	err = d.use(ctx, func(db *sqlcipher.DB) (err error) {
		if d.agent { // what a query changes would not be in the log
			if _, err := db.Write.ExecContext(ctx, "PRAGMA query_only = ON"); err != nil {
				return err
			}
			defer func() {
				_, off := db.Write.ExecContext(context.WithoutCancel(ctx), "PRAGMA query_only = OFF")
				err = errors.Join(err, off)
			}()
		}
		out, err = d.guest.Query(ctx, db, query, args)
		return err
	})
	return Rows(out), err
}

// use has one statement at a time. What the library says about a statement is
// its author's to know.
func (d *DB) use(ctx context.Context, do func(*sqlcipher.DB) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.store.Use(ctx, do)
	var issue storage.Issue
	if err == nil || errors.As(err, &issue) || ctx.Err() != nil {
		return err
	}
	if errors.Is(sqlcipher.Classify(err), sqlcipher.ErrFull) {
		return fault.WithText(fault.Usage, "database or disk is full")
	}
	return fault.WithText(fault.Usage, err.Error())
}

// logged runs a statement and writes down that it ran, both or neither.
func (d *DB) logged(ctx context.Context, db *sqlcipher.DB, by By, query string, args []any) (out Changed, err error) {
	if _, err := db.Write.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			_, undo := db.Write.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			if undo != nil && !strings.Contains(undo.Error(), "no transaction") { // the library may have rolled back
				err = errors.Join(err, undo)
			}
		}
	}()
	if out.Changes, out.Last, err = d.guest.Exec(ctx, db, query, args); err != nil {
		return out, err
	}
	at := float64(d.now().UnixMilli()) / 1000
	if _, err = db.Write.ExecContext(ctx, "INSERT INTO _changelog(ts, run_id, actor, op, sql) VALUES (?, nullif(?, ''), ?, ?, ?)", at, by.Run, by.Actor, verb(query), query); err != nil {
		return out, err
	}
	_, err = db.Write.ExecContext(ctx, "COMMIT")
	return out, err
}

// verb is the first word of a statement, in lower case.
func verb(query string) string {
	for query = strings.TrimSpace(query); ; query = strings.TrimSpace(query) {
		end, skip := "\n", strings.HasPrefix(query, "--")
		if strings.HasPrefix(query, "/*") {
			end, skip = "*/", true
		}
		if !skip {
			break
		}
		_, query, _ = strings.Cut(query, end)
	}
	word := strings.FieldsFunc(query, func(r rune) bool { return r < 'A' || r > 'z' || r > 'Z' && r < 'a' })
	if len(word) == 0 {
		return "other"
	}
	return strings.ToLower(word[0])
}

// quota warns once when an agent's database has become nearly full.
func (d *DB) quota(db *sqlcipher.DB) (string, error) {
	var path string
	if err := db.Write.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&path); err != nil {
		return "", err
	}
	var size int64
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	const quota = sqlcipher.MaxPages * sqlcipher.PageSize
	full := size*100 >= quota*SoftQuota
	warn := full && !d.warned
	if d.warned = full; warn {
		return fmt.Sprintf("the database uses %d of %d MiB", size>>20, quota>>20), nil
	}
	return "", nil
}

// parse turns a JSON array into values: integers stay exact.
func parse(parameters json.RawMessage) ([]any, error) {
	if len(bytes.TrimSpace(parameters)) == 0 {
		return nil, nil
	}
	if len(parameters) > MaxParameters {
		return nil, fault.WithText(fault.Usage, fmt.Sprintf("more than %d bytes of parameters", MaxParameters))
	}
	var list []any
	d := json.NewDecoder(bytes.NewReader(parameters))
	d.UseNumber()
	if err := d.Decode(&list); err != nil || d.More() {
		return nil, fault.WithText(fault.Usage, "the parameters are no JSON array")
	}
	for i, v := range list {
		switch v := v.(type) {
		case nil, bool, string:
		case json.Number:
			if n, err := v.Int64(); err == nil {
				list[i] = n
			} else if f, err := v.Float64(); err == nil {
				list[i] = f
			} else {
				return nil, fault.WithText(fault.Usage, fmt.Sprintf("parameter %d is too large", i+1))
			}
		default:
			return nil, fault.WithText(fault.Usage, fmt.Sprintf("parameter %d is no null, boolean, number or string", i+1))
		}
	}
	return list, nil
}

// Rows is the answer to Query.
type Rows sqlcipher.Rows

// MarshalJSON writes {"columns":[…],"rows":[[…]]}, with "truncated":true when
// there were more. Integers are exact, blobs base64, infinities 9e999.
func (r Rows) MarshalJSON() ([]byte, error) {
	type answer struct {
		Columns   []string `json:"columns"`
		Rows      [][]any  `json:"rows"`
		Truncated bool     `json:"truncated,omitempty"`
	}
	out := answer{r.Columns, make([][]any, len(r.Rows)), r.Truncated}
	if out.Columns == nil {
		out.Columns = []string{}
	}
	for i, row := range r.Rows {
		out.Rows[i] = make([]any, len(row))
		for j, v := range row {
			out.Rows[i][j] = asJSON(v)
		}
	}
	return json.Marshal(out)
}

func asJSON(v any) any {
	switch v := v.(type) {
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case float64:
		if math.IsInf(v, 0) {
			return json.RawMessage(strings.Repeat("-", map[bool]int{true: 1}[v < 0]) + "9e999")
		}
	}
	return v
}

// ErrorJSON is what a plugin gets for an error: {"error":"…"}.
func ErrorJSON(err error) []byte {
	text, marshalErr := json.Marshal(map[string]string{"error": fault.Of(err).Text})
	if marshalErr != nil {
		return []byte(`{"error":"failed"}`)
	}
	return text
}
