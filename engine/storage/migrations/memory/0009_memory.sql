CREATE TABLE IF NOT EXISTS identity (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  content TEXT NOT NULL DEFAULT '',
  overrides TEXT NOT NULL DEFAULT '[]',
  token_count INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0,
  model TEXT,
  generated_at TEXT
);
CREATE TABLE IF NOT EXISTS pinned_facts (
  id TEXT PRIMARY KEY,
  agent_id TEXT NOT NULL,
  content TEXT NOT NULL,
  salience REAL NOT NULL DEFAULT 0.5,
  source_count INTEGER NOT NULL DEFAULT 1,
  source_episode_id INTEGER,
  last_used TEXT,
  use_count INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'active',
  created_at TEXT NOT NULL,
  tags_csv TEXT
);
CREATE INDEX IF NOT EXISTS idx_pinned_facts_agent ON pinned_facts(agent_id, status, salience DESC);
CREATE TABLE IF NOT EXISTS episodes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  summary TEXT NOT NULL,
  topics_csv TEXT,
  entities_csv TEXT,
  decisions TEXT,
  action_items TEXT,
  salience REAL NOT NULL DEFAULT 0.5,
  token_count INTEGER NOT NULL DEFAULT 0,
  model TEXT,
  conversation_at TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'active',
  created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_episodes_agent ON episodes(agent_id, status, conversation_at DESC);
CREATE TABLE IF NOT EXISTS transcript (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  chunk_index INTEGER NOT NULL,
  role TEXT NOT NULL,
  content TEXT NOT NULL,
  token_count INTEGER NOT NULL DEFAULT 0,
  title TEXT,
  created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_transcript_conversation ON transcript(conversation_id, chunk_index);
CREATE INDEX IF NOT EXISTS idx_transcript_agent ON transcript(agent_id, created_at DESC);
CREATE TABLE IF NOT EXISTS pending_signals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  user_message TEXT NOT NULL,
  assistant_message TEXT,
  status TEXT NOT NULL DEFAULT 'pending',
  created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_pending_signals_conversation ON pending_signals(conversation_id, status);
CREATE INDEX IF NOT EXISTS idx_pending_signals_agent ON pending_signals(agent_id, status);
CREATE TABLE IF NOT EXISTS processing_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  task_type TEXT NOT NULL,
  model TEXT,
  status TEXT NOT NULL,
  details TEXT,
  input_tokens INTEGER,
  output_tokens INTEGER,
  duration_ms INTEGER,
  created_at TEXT NOT NULL
);
CREATE VIRTUAL TABLE IF NOT EXISTS fts_pinned USING fts5(content, content='pinned_facts', content_rowid='rowid', tokenize='unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE IF NOT EXISTS fts_episodes USING fts5(summary, topics_csv, entities_csv, content='episodes', content_rowid='id', tokenize='unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE IF NOT EXISTS fts_transcript USING fts5(content, content='transcript', content_rowid='id', tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER IF NOT EXISTS pinned_ai AFTER INSERT ON pinned_facts BEGIN INSERT INTO fts_pinned(rowid, content) VALUES (new.rowid, new.content); END;
CREATE TRIGGER IF NOT EXISTS pinned_ad AFTER DELETE ON pinned_facts BEGIN INSERT INTO fts_pinned(fts_pinned, rowid, content) VALUES ('delete', old.rowid, old.content); END;
CREATE TRIGGER IF NOT EXISTS pinned_au AFTER UPDATE ON pinned_facts BEGIN INSERT INTO fts_pinned(fts_pinned, rowid, content) VALUES ('delete', old.rowid, old.content); INSERT INTO fts_pinned(rowid, content) VALUES (new.rowid, new.content); END;
CREATE TRIGGER IF NOT EXISTS episodes_ai AFTER INSERT ON episodes BEGIN INSERT INTO fts_episodes(rowid, summary, topics_csv, entities_csv) VALUES (new.id, new.summary, new.topics_csv, new.entities_csv); END;
CREATE TRIGGER IF NOT EXISTS episodes_ad AFTER DELETE ON episodes BEGIN INSERT INTO fts_episodes(fts_episodes, rowid, summary, topics_csv, entities_csv) VALUES ('delete', old.id, old.summary, old.topics_csv, old.entities_csv); END;
CREATE TRIGGER IF NOT EXISTS episodes_au AFTER UPDATE ON episodes BEGIN INSERT INTO fts_episodes(fts_episodes, rowid, summary, topics_csv, entities_csv) VALUES ('delete', old.id, old.summary, old.topics_csv, old.entities_csv); INSERT INTO fts_episodes(rowid, summary, topics_csv, entities_csv) VALUES (new.id, new.summary, new.topics_csv, new.entities_csv); END;
CREATE TRIGGER IF NOT EXISTS transcript_ai AFTER INSERT ON transcript BEGIN INSERT INTO fts_transcript(rowid, content) VALUES (new.id, new.content); END;
CREATE TRIGGER IF NOT EXISTS transcript_ad AFTER DELETE ON transcript BEGIN INSERT INTO fts_transcript(fts_transcript, rowid, content) VALUES ('delete', old.id, old.content); END;
CREATE TRIGGER IF NOT EXISTS transcript_au AFTER UPDATE ON transcript BEGIN INSERT INTO fts_transcript(fts_transcript, rowid, content) VALUES ('delete', old.id, old.content); INSERT INTO fts_transcript(rowid, content) VALUES (new.id, new.content); END;
