package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"osaurus/engine/discovery"
	"osaurus/engine/fault"
	"osaurus/engine/pairing"
	"osaurus/engine/runner"
)

func (s *Server) peerOps() {
	e := s.engine
	lines(s, "discover", func(ctx context.Context, _ Empty, emit func(discovery.Event) error) error {
		var failed error
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err := e.Browse(ctx, func(ev discovery.Event) {
			if failed = emit(ev); failed != nil {
				cancel()
			}
		})
		return errors.Join(err, failed)
	})
	op(s, "pair", func(ctx context.Context, in Pair) (pairing.Peer, error) {
		u, err := url.Parse(in.BaseURL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return pairing.Peer{}, fault.WithText(fault.Usage, "the host's address must look like http://192.0.2.7:1337")
		}
		p, err := e.Pair(ctx, pairing.Target{BaseURL: u, AgentID: in.AgentID, Address: in.Address, PQ: in.PQ}, in.Name)
		if err != nil || p.Name != "" {
			return p, err
		}
		return s.name(ctx, p)
	})
	op(s, "peers/list", func(context.Context, Empty) ([]pairing.Peer, error) { return e.Peers.List() })
	do(s, "peers/forget", func(ctx context.Context, in ID) error {
		p, err := e.Peers.Find(in.ID)
		if err != nil {
			return err
		}
		return e.Peers.Forget(ctx, p.Address)
	})
	do(s, "peers/rename", func(_ context.Context, in Rename) error {
		p, err := e.Peers.Find(in.Peer)
		if err != nil {
			return err
		}
		return e.Peers.Rename(p.Address, in.Name)
	})
	lines(s, "run", s.run)
	op(s, "tasks/dispatch", s.dispatch)
	op(s, "tasks/show", func(ctx context.Context, in Run) (runner.Task, error) {
		if in.Peer == "" {
			return e.Runner.Task(runner.Caller{}, in.TaskID)
		}
		return peerJSON[runner.Task](ctx, s, in.Peer, http.MethodGet, []string{"tasks", in.TaskID}, nil)
	})
	do(s, "tasks/cancel", func(ctx context.Context, in Run) error {
		if in.Peer == "" {
			return e.Runner.Cancel(runner.Caller{}, in.TaskID)
		}
		_, err := peerJSON[Empty](ctx, s, in.Peer, http.MethodDelete, []string{"tasks", in.TaskID}, nil)
		return err
	})
}

// name gives a new peer the name its host uses for the agent. The pairing
// stands without it.
func (s *Server) name(ctx context.Context, p pairing.Peer) (pairing.Peer, error) {
	got, err := peerJSON[struct {
		Name string `json:"name"`
	}](ctx, s, p.Address.String(), http.MethodGet, []string{"agents", p.Address.Lower()}, nil)
	if err != nil || pairing.PeerName(got.Name) == "" {
		got.Name = p.Address.Short()
	}
	p.Name = pairing.PeerName(got.Name)
	return p, s.engine.Peers.Rename(p.Address, p.Name)
}

// chatBody is the request of a run.
func (in Run) chatBody() ([]byte, error) {
	body := map[string]any{"messages": []map[string]string{{"role": "user", "content": in.Prompt}}, "stream": true}
	if in.Model != "" {
		body["model"] = in.Model
	}
	if in.SessionID != "" {
		body["session_id"] = in.SessionID
	}
	return json.Marshal(body)
}

func (s *Server) run(ctx context.Context, in Run, emit func(RunEvent) error) error {
	body, err := in.chatBody()
	if err != nil {
		return err
	}
	if in.Peer == "" {
		return s.runLocal(ctx, in.Agent, body, emit)
	}
	p, err := s.engine.Peers.Find(in.Peer)
	if err != nil {
		return err
	}
	resp, err := s.callPeer(ctx, p, http.MethodPost, []string{"agents", p.Address.Lower(), "run"}, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	return relay(bufio.NewReader(resp.Body), emit)
}

// errUnfinished stands for an answer that ended without its [DONE].
var errUnfinished = errors.New("the answer broke off before its end; run it again")

// runLocal runs an agent of this host for its owner.
func (s *Server) runLocal(ctx context.Context, agent string, body []byte, emit func(RunEvent) error) error {
	a, err := s.find(agent)
	if err != nil {
		return err
	}
	req, err := runner.ParseRequest(body)
	if err != nil {
		return err
	}
	run, err := s.engine.Runner.Admit(ctx, runner.Caller{})
	if err != nil {
		return err
	}
	return run.Stream(a, req, func(event []byte, _ bool) error {
		data, ok := eventData(event)
		switch {
		case !ok:
			return nil
		case string(data) == "[DONE]":
			return emit(RunEvent{Done: true})
		}
		return emitEvent(data, emit)
	})
}

// eventData is what one line of an event stream carries.
func eventData(line []byte) ([]byte, bool) {
	return bytes.CutPrefix(bytes.TrimSpace(line), []byte("data: "))
}

// relay turns a peer's completion events into ours. Done is said only when the
// stream itself has ended well: [DONE] may arrive from a channel whose last
// frame never does.
func relay(r *bufio.Reader, emit func(RunEvent) error) error {
	for done := false; ; {
		line, err := r.ReadBytes('\n')
		data, ok := eventData(line)
		switch {
		case ok && string(data) == "[DONE]":
			done = true
		case ok && !done:
			if err := emitEvent(data, emit); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && done:
			return emit(RunEvent{Done: true})
		case errors.Is(err, io.EOF):
			return errUnfinished
		case err != nil:
			return err
		}
	}
}

func emitEvent(data []byte, emit func(RunEvent) error) error {
	var c struct {
		Choices []struct {
			Delta struct {
				Content   string `json:"content"`
				Reasoning string `json:"reasoning_content"`
			} `json:"delta"`
			Finish string `json:"finish_reason"`
		} `json:"choices"`
		Error *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return errors.New("the host sent an event that is no completion chunk")
	}
	if c.Error != nil {
		return emit(RunEvent{Error: &Error{Code: c.Error.Code, Message: pairing.PeerName(c.Error.Message), Exit: exitFailed}})
	}
	for _, ch := range c.Choices {
		ev := RunEvent{Content: ch.Delta.Content, Reasoning: ch.Delta.Reasoning, Finish: ch.Finish}
		if ev == (RunEvent{}) {
			continue
		}
		if err := emit(ev); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) dispatch(ctx context.Context, in Run) (runner.Task, error) {
	d := runner.Dispatch{Prompt: in.Prompt, Title: in.Title, SessionID: in.SessionID}
	if in.Peer == "" {
		a, err := s.find(in.Agent)
		if err != nil {
			return runner.Task{}, err
		}
		return s.engine.Runner.Dispatch(ctx, runner.Caller{}, a, d)
	}
	p, err := s.engine.Peers.Find(in.Peer)
	if err != nil {
		return runner.Task{}, err
	}
	body, err := json.Marshal(d)
	if err != nil {
		return runner.Task{}, err
	}
	return peerJSON[runner.Task](ctx, s, in.Peer, http.MethodPost, []string{"agents", p.Address.Lower(), "dispatch"}, body)
}

func (s *Server) callPeer(ctx context.Context, p pairing.Peer, method string, path []string, body []byte) (*http.Response, error) {
	resp, err := s.engine.CallPeer(ctx, p, func(base *url.URL) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, base.JoinPath(path...).String(), bytes.NewReader(body))
		if err == nil && body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, err
	})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	return nil, &pairing.Refused{Status: resp.StatusCode, Text: pairing.RefusalText(raw)}
}

func peerJSON[Out any](ctx context.Context, s *Server, peer, method string, path []string, body []byte) (Out, error) {
	var out Out
	p, err := s.engine.Peers.Find(peer)
	if err != nil {
		return out, err
	}
	resp, err := s.callPeer(ctx, p, method, path, body)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 32<<20)).Decode(&out); err != nil {
		return out, fmt.Errorf("the host's answer does not parse")
	}
	return out, nil
}
