package chats

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/blob"
)

// Columns in the order of scanSession and scanTurn. Another host may leave
// any of them NULL.
const (
	sessionColumns = `id, COALESCE(title, ''), COALESCE(created_at, 0), COALESCE(updated_at, 0), COALESCE(selected_model, ''), COALESCE(agent_id, ''),
 COALESCE(source, ''), COALESCE(source_plugin_id, ''), COALESCE(external_session_key, ''), COALESCE(dispatch_task_id, ''),
 COALESCE(archived, 0), COALESCE(capabilities, ''), COALESCE(turn_count, 0)`
	turnColumns = `id, role, COALESCE(content, ''), COALESCE(thinking, ''), COALESCE(attachments, ''), COALESCE(tool_calls, ''), COALESCE(tool_call_id, ''),
 COALESCE(tool_results, ''), COALESCE(tool_call_durations, ''), COALESCE(created_at, 0), COALESCE(completed_at, 0), COALESCE(generation_token_count, 0),
 COALESCE(time_to_first_token, 0), COALESCE(thinking_duration, 0)`
)

type scanner interface{ Scan(...any) error }

func scanSession(row scanner) (Session, error) {
	var s Session
	var created, updated float64
	var capabilities string
	err := row.Scan(&s.ID, &s.Title, &created, &updated, &s.Model, &s.AgentID, &s.Source, &s.PluginID, &s.ExternalKey, &s.DispatchTaskID, &s.Archived, &capabilities, &s.TurnCount)
	s.CreatedAt, s.UpdatedAt = timeOf(created), timeOf(updated)
	if capabilities != "" {
		s.Capabilities = strings.Split(capabilities, ",")
	}
	return s, err
}

func queryTurns(ctx context.Context, conn *sql.Conn, query string, args ...any) ([]Turn, error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	var all []Turn
	err = each(rows, func() error {
		t, err := scanTurn(rows)
		all = append(all, t)
		return err
	})
	return all, err
}

func scanTurn(row scanner) (Turn, error) {
	var t Turn
	var attachments, calls, results, durations string
	var created, completed, first, thought float64
	err := row.Scan(&t.ID, &t.Role, &t.Content, &t.Thinking, &attachments, &calls, &t.ToolCallID, &results, &durations, &created, &completed, &t.GeneratedTokens, &first, &thought)
	t.ToolCalls, t.ToolResults, t.CallDurations = rawOf(calls), rawOf(results), rawOf(durations)
	t.CreatedAt, t.CompletedAt = timeOf(created), timeOf(completed)
	t.TimeToFirstToken, t.ThinkingDuration = durationOf(first), durationOf(thought)
	if attachments != "" && json.Unmarshal([]byte(attachments), &t.Attachments) != nil {
		t.Attachments, t.foreign = nil, attachments
	}
	return t, err
}

func rawOf(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// row is a turn as it is written. Empty texts and zero numbers become NULL
// where the column knows NULL.
type row struct {
	turn                                     Turn
	attachments, calls, results, callTimings string
	hash                                     string
}

// rowOf prepares a turn whose attachments have been spilled.
func rowOf(t Turn) (row, error) {
	for _, text := range []*string{&t.Role, &t.Content, &t.Thinking, &t.ToolCallID} {
		*text = strings.ToValidUTF8(*text, "\uFFFD") // the hash is over JSON, which has nothing else
	}
	r := row{turn: t, attachments: t.foreign}
	var err error
	if len(t.Attachments) > 0 {
		if r.attachments, err = jsonText(t.Attachments); err != nil {
			return row{}, err
		}
	}
	for to, from := range map[*string]json.RawMessage{&r.calls: t.ToolCalls, &r.results: t.ToolResults, &r.callTimings: t.CallDurations} {
		if len(from) > 0 {
			if *to, err = jsonText(from); err != nil {
				return row{}, err
			}
		}
	}
	r.hash, err = r.contentHash()
	return r, err
}

func jsonText(v any) (string, error) {
	text, err := canonjson.Marshal(v)
	if err != nil {
		// The cause could repeat the content.
		return "", fault.WithText(fault.Usage, "a turn has malformed JSON")
	}
	return string(text), nil
}

// contentHash tells whether a turn changed without comparing its columns.
func (r row) contentHash() (string, error) {
	t := r.turn
	text, err := canonjson.Marshal(map[string]any{
		"role": t.Role, "content": t.Content, "thinking": t.Thinking, "attachments": r.attachments, "tool_calls": r.calls, "tool_call_id": t.ToolCallID,
		"tool_results": r.results, "tool_call_durations": r.callTimings, "created_at": micros(t.CreatedAt), "completed_at": micros(t.CompletedAt),
		"generation_token_count": t.GeneratedTokens, "time_to_first_token": t.TimeToFirstToken.Microseconds(), "thinking_duration": t.ThinkingDuration.Microseconds(),
	})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// Times are REAL seconds since 1970 in the tables, 0 here for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func seconds(t time.Time) float64 { return float64(micros(t)) / 1e6 }

func secondsOf(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// maxSeconds bounds what a column of another host may say, so that no
// conversion overflows.
const maxSeconds = 1e11

func microsOf(seconds float64) int64 {
	if math.IsNaN(seconds) {
		return 0
	}
	return int64(math.Round(max(-maxSeconds, min(seconds, maxSeconds)) * 1e6))
}

func timeOf(seconds float64) time.Time {
	if us := microsOf(seconds); us != 0 {
		return time.UnixMicro(us).UTC()
	}
	return time.Time{}
}

func durationOf(seconds float64) time.Duration {
	return time.Duration(min(microsOf(seconds), math.MaxInt64/1000)) * time.Microsecond
}

// orNull is v, or NULL for its zero value.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// spillTurns returns the turns to store with their attachments kept as blobs.
func spillTurns(blobs *blob.Store, turns []Turn) ([]row, error) {
	seen := map[string]bool{}
	var rows []row
	for _, t := range turns {
		if t.Role == RoleSystem {
			continue
		}
		if t.ID == "" || seen[t.ID] {
			return nil, fault.WithText(fault.Usage, "each turn needs an id of its own")
		}
		seen[t.ID] = true
		var err error
		if t.Attachments, err = blobs.Spill(t.Attachments); err != nil {
			return nil, err
		}
		r, err := rowOf(t)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// values are the columns of a session in the order of its statements.
func (s Session) values(updated time.Time) []any {
	return []any{s.Title, seconds(s.CreatedAt), seconds(updated), orNull(s.Model), orNull(s.AgentID), s.Source, orNull(s.PluginID), orNull(s.ExternalKey),
		orNull(s.DispatchTaskID), s.Archived, strings.Join(s.Capabilities, ","), s.TurnCount, s.ID}
}

// putTurn inserts or updates a turn and records what it mentions. The id of a
// turn in another session is refused.
func putTurn(ctx context.Context, tx *sql.Tx, session string, seq int, r row) error {
	t := r.turn
	done, err := tx.ExecContext(ctx, `INSERT INTO turns(id, session_id, seq, role, content, attachments, tool_calls, tool_call_id, tool_results, thinking, content_hash,
 created_at, completed_at, generation_token_count, time_to_first_token, tool_call_durations, thinking_duration)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
 ON CONFLICT(id) DO UPDATE SET seq = excluded.seq, role = excluded.role, content = excluded.content, attachments = excluded.attachments,
 tool_calls = excluded.tool_calls, tool_call_id = excluded.tool_call_id, tool_results = excluded.tool_results, thinking = excluded.thinking,
 content_hash = excluded.content_hash, created_at = excluded.created_at, completed_at = excluded.completed_at,
 generation_token_count = excluded.generation_token_count, time_to_first_token = excluded.time_to_first_token,
 tool_call_durations = excluded.tool_call_durations, thinking_duration = excluded.thinking_duration
 WHERE turns.session_id = excluded.session_id`,
		t.ID, session, seq, t.Role, t.Content, orNull(r.attachments), orNull(r.calls), orNull(t.ToolCallID), orNull(r.results), t.Thinking, r.hash,
		orNull(seconds(t.CreatedAt)), orNull(seconds(t.CompletedAt)), orNull(t.GeneratedTokens), orNull(secondsOf(t.TimeToFirstToken)), orNull(r.callTimings), orNull(secondsOf(t.ThinkingDuration)))
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fault.WithText(fault.Usage, "the id of a turn is taken by another session"))
	}
	return putRefs(ctx, tx, session, t.ID, r.attachments)
}
