CREATE TABLE IF NOT EXISTS tool_index (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  runtime TEXT NOT NULL,
  manifest_path TEXT,
  bundle_id TEXT,
  tools_json TEXT NOT NULL DEFAULT '[]',
  source TEXT NOT NULL DEFAULT 'manual',
  token_count INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_tool_index_runtime ON tool_index(runtime);
