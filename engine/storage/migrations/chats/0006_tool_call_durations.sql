ALTER TABLE turns ADD COLUMN tool_call_durations TEXT;
