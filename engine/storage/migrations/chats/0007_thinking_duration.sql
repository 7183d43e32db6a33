ALTER TABLE turns ADD COLUMN thinking_duration REAL;
