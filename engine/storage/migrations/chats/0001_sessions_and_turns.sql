CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY,
  title TEXT,
  created_at REAL,
  updated_at REAL,
  selected_model TEXT,
  agent_id TEXT,
  source TEXT DEFAULT 'chat',
  source_plugin_id TEXT,
  external_session_key TEXT,
  dispatch_task_id TEXT,
  turn_count INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS turns (
  id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  role TEXT NOT NULL,
  content TEXT,
  attachments TEXT,
  tool_calls TEXT,
  tool_call_id TEXT,
  tool_results TEXT,
  thinking TEXT DEFAULT ''
);
CREATE INDEX IF NOT EXISTS idx_sessions_agent ON sessions(agent_id);
CREATE INDEX IF NOT EXISTS idx_sessions_source ON sessions(source);
CREATE INDEX IF NOT EXISTS idx_sessions_external ON sessions(source_plugin_id, external_session_key);
CREATE INDEX IF NOT EXISTS idx_sessions_updated ON sessions(updated_at DESC);
CREATE UNIQUE INDEX IF NOT EXISTS idx_turns_session_seq ON turns(session_id, seq);
