//go:build !sqlite_fts5 || !sqlite_json || !cgo

package sqlcipher

// Without these tags SQLite has no full-text search, and without cgo the
// driver is a stub that fails at run time: better not to compile (decisions
// D11).
var _ = build_with_GOFLAGS_tags_sqlite_fts5_sqlite_json_and_CGO_ENABLED_1
