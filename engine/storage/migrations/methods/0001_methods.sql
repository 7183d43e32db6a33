CREATE TABLE IF NOT EXISTS methods (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  trigger_text TEXT,
  body TEXT NOT NULL,
  source TEXT NOT NULL,
  source_model TEXT,
  tier TEXT NOT NULL DEFAULT 'active',
  tools_used TEXT NOT NULL DEFAULT '[]',
  skills_used TEXT NOT NULL DEFAULT '[]',
  token_count INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 1,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_methods_tier ON methods(tier);
CREATE INDEX IF NOT EXISTS idx_methods_name ON methods(name);
CREATE TABLE IF NOT EXISTS method_events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  method_id TEXT NOT NULL REFERENCES methods(id) ON DELETE CASCADE,
  event_type TEXT NOT NULL,
  model_used TEXT,
  agent_id TEXT,
  notes TEXT,
  created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_method_events_method ON method_events(method_id, event_type);
CREATE INDEX IF NOT EXISTS idx_method_events_created ON method_events(created_at);
CREATE TABLE IF NOT EXISTS method_scores (
  method_id TEXT PRIMARY KEY REFERENCES methods(id) ON DELETE CASCADE,
  times_loaded INTEGER NOT NULL DEFAULT 0,
  times_succeeded INTEGER NOT NULL DEFAULT 0,
  times_failed INTEGER NOT NULL DEFAULT 0,
  success_rate REAL NOT NULL DEFAULT 0,
  last_used_at TEXT,
  score REAL NOT NULL DEFAULT 0
);
