CREATE TABLE IF NOT EXISTS agent_next_run (
  agent_id TEXT PRIMARY KEY,
  scheduled_at REAL NOT NULL,
  instructions TEXT NOT NULL,
  context_views TEXT NOT NULL DEFAULT '[]',
  priority TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('normal', 'low')),
  on_miss TEXT NOT NULL DEFAULT 'run_once' CHECK (on_miss IN ('skip', 'run_once', 'run_catchup')),
  scheduled_by TEXT NOT NULL DEFAULT 'agent' CHECK (scheduled_by IN ('agent', 'user', 'system')),
  scheduled_at_wall TEXT
);
CREATE TABLE IF NOT EXISTS agent_runs (
  id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  trigger_kind TEXT NOT NULL,
  trigger_payload TEXT,
  instructions TEXT,
  started_at REAL NOT NULL,
  ended_at REAL,
  status TEXT NOT NULL,
  tokens_in INTEGER,
  tokens_out INTEGER,
  cost_usd REAL,
  error TEXT
);
CREATE INDEX IF NOT EXISTS idx_agent_runs_agent ON agent_runs(agent_id, started_at DESC);
CREATE TABLE IF NOT EXISTS agent_pause (
  agent_id TEXT PRIMARY KEY,
  paused_at REAL NOT NULL,
  reason TEXT
);
