ALTER TABLE sessions ADD COLUMN capabilities TEXT DEFAULT '';
