package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// Answer is a completion passed through from the provider. One that streams
// asks the provider when Events is called, so that what carries the stream has
// begun by then.
type Answer struct {
	open func() (io.ReadCloser, error)
	body io.ReadCloser // of one that does not stream
	end  func()
}

// Body returns the provider's JSON.
func (a *Answer) Body() io.Reader { return a.body }

// Close frees the slot.
func (a *Answer) Close() {
	if a.body != nil {
		_ = a.body.Close() // only read
	}
	a.end()
}

// Events passes the provider's events on as they are, with a comment whenever
// it is silent for Ping. It returns an error when the stream broke off before
// [DONE].
func (a *Answer) Events(emit Emit) (err error) {
	w := &writer{emit: emit, ping: Ping}
	stop := w.keepAlive()
	defer stop()
	if a.body, err = a.open(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(a.body, 64<<10)
	for {
		data, err := readEvent(r)
		if err != nil {
			return fault.New(fault.ProviderFailed, err)
		}
		event := append(append([]byte("data: "), data...), "\n\n"...)
		done := string(data) == "[DONE]"
		if err := w.send(event, done || r.Buffered() == 0); err != nil || done {
			return err
		}
	}
}

// Complete sends a request to the provider as it is, apart from the model.
// Errors: fault.ServerOverloaded, fault.NoModelProvider, fault.ProviderFailed.
func (r *Runner) Complete(ctx context.Context, who Caller, req Request, stream bool) (*Answer, error) {
	ctx, end, err := r.begin(ctx, who)
	if err != nil {
		return nil, err
	}
	answer, err := r.passThrough(ctx, req, stream)
	if err != nil {
		end()
		return nil, err
	}
	answer.end = end
	return answer, nil
}

func (r *Runner) passThrough(ctx context.Context, req Request, stream bool) (*Answer, error) {
	open := func() (io.ReadCloser, error) { return r.echoAnswer(ctx, req, stream) }
	if req.Model != Echo {
		e, err := r.c.Endpoint(ctx)
		if err != nil {
			return nil, err
		}
		if e.BaseURL == "" {
			return nil, fault.NoModelProvider
		}
		open = func() (io.ReadCloser, error) { return e.complete(ctx, req, stream) }
	}
	if stream {
		return &Answer{open: open}, nil
	}
	body, err := open()
	return &Answer{body: body}, err
}

// complete sends a request as it is, apart from the model.
func (e Endpoint) complete(ctx context.Context, req Request, stream bool) (io.ReadCloser, error) {
	model, err := e.model(ctx, req.Model)
	if err != nil {
		return nil, err
	}
	body, err := req.upstream(model, req.rawMessages(), stream)
	if err != nil {
		return nil, err
	}
	resp, err := e.request(ctx, http.MethodPost, "chat/completions", body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // only read
		return nil, fault.New(fault.ProviderFailed, fmt.Errorf("the provider answered %d", resp.StatusCode))
	}
	return resp.Body, nil
}

// echoAnswer is the built-in model in the provider's own forms.
func (r *Runner) echoAnswer(ctx context.Context, req Request, stream bool) (io.ReadCloser, error) {
	id, err := r.completionID()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := &writer{emit: func(event []byte, _ bool) error { _, err := out.Write(event); return err }}
	w.head(id, r.c.Now().Unix(), Echo)
	if err := w.choices("["+firstChoice+"]", false); err != nil {
		return nil, err
	}
	if err := echo(ctx, req.Messages, w.pass(req.Usage || !stream)); err != nil {
		return nil, err
	}
	if stream {
		if err := w.finish(); err != nil {
			return nil, err
		}
		out.WriteString("data: [DONE]\n\n")
		return io.NopCloser(&out), nil
	}
	raw, err := canonjson.Marshal(map[string]any{
		"id": id, "object": "chat.completion", "created": r.c.Now().Unix(), "model": Echo, "usage": w.usage,
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": json.RawMessage(mustText(w.text()))}},
	})
	return io.NopCloser(bytes.NewReader(raw)), err
}

func mustText(text string) []byte {
	raw, err := json.Marshal(textMessage("assistant", text))
	if err != nil {
		panic("runner: internal error: " + err.Error())
	}
	return raw
}
