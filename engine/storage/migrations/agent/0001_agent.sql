CREATE TABLE IF NOT EXISTS _tables_meta (
  name TEXT PRIMARY KEY,
  description TEXT,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS _changelog (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ts REAL NOT NULL,
  run_id TEXT,
  actor TEXT NOT NULL,
  op TEXT NOT NULL,
  table_name TEXT,
  row_pk TEXT,
  before_json TEXT,
  after_json TEXT,
  sql TEXT
);
CREATE INDEX IF NOT EXISTS idx_changelog_ts ON _changelog(ts DESC);
CREATE INDEX IF NOT EXISTS idx_changelog_run ON _changelog(run_id);
CREATE TABLE IF NOT EXISTS _views (
  name TEXT PRIMARY KEY,
  description TEXT,
  sql TEXT NOT NULL,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL
);
