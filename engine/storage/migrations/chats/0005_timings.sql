ALTER TABLE turns ADD COLUMN created_at REAL;
ALTER TABLE turns ADD COLUMN completed_at REAL;
ALTER TABLE turns ADD COLUMN generation_token_count INTEGER;
ALTER TABLE turns ADD COLUMN time_to_first_token REAL;
