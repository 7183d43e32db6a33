CREATE TABLE IF NOT EXISTS osr_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS osr_blob_refs (hash TEXT NOT NULL, session_id TEXT NOT NULL, turn_id TEXT NOT NULL, PRIMARY KEY (hash, turn_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS osr_blob_refs_turn ON osr_blob_refs(turn_id);
CREATE INDEX IF NOT EXISTS osr_blob_refs_session ON osr_blob_refs(session_id);
CREATE INDEX IF NOT EXISTS osr_turns_spilled ON turns(session_id) WHERE instr(attachments, '_ref"') > 0;
