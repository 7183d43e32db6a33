CREATE VIRTUAL TABLE IF NOT EXISTS tool_index_fts USING fts5(name, description, content='tool_index', content_rowid='rowid', tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER IF NOT EXISTS tool_index_ai AFTER INSERT ON tool_index BEGIN INSERT INTO tool_index_fts(rowid, name, description) VALUES (new.rowid, new.name, new.description); END;
CREATE TRIGGER IF NOT EXISTS tool_index_ad AFTER DELETE ON tool_index BEGIN INSERT INTO tool_index_fts(tool_index_fts, rowid, name, description) VALUES ('delete', old.rowid, old.name, old.description); END;
CREATE TRIGGER IF NOT EXISTS tool_index_au AFTER UPDATE ON tool_index BEGIN INSERT INTO tool_index_fts(tool_index_fts, rowid, name, description) VALUES ('delete', old.rowid, old.name, old.description); INSERT INTO tool_index_fts(rowid, name, description) VALUES (new.rowid, new.name, new.description); END;
INSERT INTO tool_index_fts(tool_index_fts) VALUES ('rebuild');
