package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// chunk is one event of a completion stream. Choices pass through as they
// came, so tool calls and reasoning survive.
type chunk struct {
	Choices []json.RawMessage `json:"choices"`
	Usage   json.RawMessage   `json:"usage,omitempty"`
	Error   json.RawMessage   `json:"error,omitempty"`
}

// choice is what the runner needs to see of a choice.
type choice struct {
	Delta struct {
		Role      string          `json:"role"`
		Content   *string         `json:"content"`
		Reasoning *string         `json:"reasoning_content"`
		Tools     json.RawMessage `json:"tool_calls"`
	} `json:"delta"`
	Finish *string `json:"finish_reason"`
}

var (
	errStalled   = errors.New("the provider fell silent")
	errHungUp    = errors.New("the provider hung up in the middle of the answer")
	errMalformed = errors.New("the provider sent an event that is no completion chunk")
)

// stream sends one request and hands every chunk to each, with whether more
// has already arrived behind it. It returns nil only after [DONE].
func (e Endpoint) stream(ctx context.Context, body []byte, each func(c chunk, more bool) error) error {
	resp, err := e.request(ctx, http.MethodPost, "chat/completions", body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return fault.New(fault.ProviderFailed, fmt.Errorf("the provider answered %d", resp.StatusCode))
	}
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		data, err := readEvent(r)
		if err != nil {
			return fault.New(fault.ProviderFailed, err)
		}
		if string(data) == "[DONE]" {
			return nil
		}
		var c chunk
		if err := json.Unmarshal(data, &c); err != nil || c.Error != nil {
			return fault.New(fault.ProviderFailed, errMalformed)
		}
		if err := each(c, r.Buffered() > 0); err != nil {
			return err
		}
	}
}

// readEvent returns the data of the next server-sent event. Comments and
// other fields are skipped; data lines of one event are joined.
func readEvent(r *bufio.Reader) ([]byte, error) {
	var data []byte
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if data != nil {
				return data, nil
			}
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		if data != nil {
			data = append(data, '\n')
		}
		data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		if len(data) > MaxEvent {
			return nil, errMalformed
		}
	}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var whole []byte
	for {
		part, err := r.ReadSlice('\n')
		whole = append(whole, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(whole, "\r\n"), nil
		case errors.Is(err, bufio.ErrBufferFull) && len(whole) <= MaxEvent:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errHungUp
		default:
			return nil, err
		}
	}
}

// echo plays the built-in model: the last user message, word by word. A word
// counts as a token.
func echo(ctx context.Context, messages []Message, each func(c chunk, more bool) error) error {
	text, asked := "", 0
	for _, m := range messages {
		asked += len(strings.Fields(m.Text()))
		if m.Role == "user" {
			text = m.Text()
		}
	}
	words := strings.SplitAfter(text, " ")
	for _, word := range words {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece, err := canonjson.Marshal(map[string]any{"index": 0, "delta": map[string]string{"content": word}, "finish_reason": nil})
		if err != nil {
			return err
		}
		if err := each(chunk{Choices: []json.RawMessage{piece}}, false); err != nil {
			return err
		}
	}
	usage := fmt.Sprintf(`{"completion_tokens":%d,"prompt_tokens":%d,"total_tokens":%d}`, len(words), asked, asked+len(words))
	return each(chunk{Choices: []json.RawMessage{json.RawMessage(lastChoice)}, Usage: json.RawMessage(usage)}, false)
}

// firstChoice and lastChoice begin and end a stream.
const (
	firstChoice = `{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0}`
	lastChoice  = `{"delta":{},"finish_reason":"stop","index":0}`
)
