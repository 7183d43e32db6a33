package server

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/runner"
)

// models lists the provider's models, and the built-in echo.
func (s *Server) models(x *exchange) {
	data := []map[string]any{}
	if !x.empty {
		entry := func(id string, created int64) {
			data = append(data, map[string]any{"id": id, "object": "model", "created": created, "owned_by": "osaurus"})
		}
		if e, err := s.c.Endpoint(x.r.Context()); err == nil && e.BaseURL != "" {
			// A provider that does not answer shows as an empty list.
			if list, err := e.Models(x.r.Context()); err == nil {
				for _, m := range list {
					entry(m.ID, m.Created)
				}
			}
		}
		entry(runner.Echo, 0)
	}
	x.json(http.StatusOK, map[string]any{"object": "list", "data": data})
}

// chat passes a completion through to the provider, streamed when the body or
// the Accept header asks.
func (s *Server) chat(x *exchange) {
	raw, err := x.read()
	var req runner.Request
	if err == nil {
		req, err = runner.ParseRequest(raw)
	}
	if err == nil {
		err = s.claim(x)
	}
	var done func()
	if err == nil {
		done, err = s.passThrough(x, req)
	}
	if err != nil {
		x.refuse(s, err)
		return
	}
	done()
}

func (s *Server) passThrough(x *exchange, req runner.Request) (func(), error) {
	stream := req.Stream || strings.Contains(strings.ToLower(x.r.Header.Get("Accept")), "text/event-stream")
	answer, err := s.c.Runner.Complete(x.r.Context(), x.caller(), req, stream)
	if err != nil {
		return nil, err
	}
	return func() {
		defer answer.Close()
		if !stream {
			s.buffered(x, answer)
			return
		}
		emit := x.stream()
		_ = emit(nil, true) // the stream begins before the provider is asked
		if err := answer.Events(emit); err != nil {
			_ = emit(append(fault.Event(err), "data: [DONE]\n\n"...), true) // the caller may be gone
		}
	}, nil
}

func (s *Server) buffered(x *exchange, answer *runner.Answer) {
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, io.LimitReader(answer.Body(), MaxBody)); err != nil {
		x.refuse(s, fault.New(fault.ProviderFailed, err))
		return
	}
	x.raw(http.StatusOK, buf.Bytes())
}
