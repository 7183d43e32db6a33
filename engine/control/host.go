package control

import (
	"bufio"
	"context"
	"encoding/json"
	"os"

	"osaurus/engine"
	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/server"
	"osaurus/engine/settings"
)

func (s *Server) hostOps() {
	e := s.engine
	op(s, "status", func(ctx context.Context, _ Empty) (engine.Status, error) { return e.Status(ctx), nil })
	op(s, "doctor", func(ctx context.Context, _ Empty) (engine.Status, error) { return e.Diagnose(ctx), nil })
	do(s, "stop", func(context.Context, Empty) error { s.stop(); return nil })
	op(s, "settings/show", func(context.Context, Empty) (settings.Server, error) { return e.Settings(), nil })
	do(s, "settings/set", func(_ context.Context, in settings.Server) error {
		if err := in.Validate(); err != nil {
			return fault.WithText(fault.Usage, err.Error())
		}
		return e.SetSettings(in)
	})
	op(s, "provider/show", func(context.Context, Empty) (Provider, error) { return Provider{Provider: e.Provider()}, nil })
	op(s, "provider/probe", s.probe)
	do(s, "provider/use", func(ctx context.Context, in Provider) error {
		key := secret.New([]byte(in.Key))
		defer key.Destroy()
		return e.UseProvider(ctx, in.Provider, key)
	})
	op(s, "requests", func(context.Context, Empty) ([]server.Entry, error) { return e.Server.Requests(), nil })
	lines(s, "log/show", s.showLog)
	op(s, "log/verify", func(ctx context.Context, _ Empty) (LogHead, error) {
		head, err := e.VerifyLog(ctx)
		if err != nil {
			return LogHead{}, &Error{Code: "log_broken", Message: err.Error(), Exit: exitIntegrity}
		}
		return LogHead(head), nil
	})
}

func (s *Server) probe(ctx context.Context, _ Empty) (Provider, error) {
	found, models, err := s.engine.ProbeProviders(ctx)
	p := Provider{Provider: settings.Provider{BaseURL: found.BaseURL}}
	for _, m := range models {
		p.Models = append(p.Models, m.ID)
	}
	return p, err
}

func (s *Server) showLog(_ context.Context, _ Empty, emit func(json.RawMessage) error) error {
	files, err := eventlog.Files(s.engine.LogPath())
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := emitFile(name, emit); err != nil {
			return err
		}
	}
	return nil
}

func emitFile(name string, emit func(json.RawMessage) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, eventlog.MaxLine+1)
	for scan.Scan() {
		if !json.Valid(scan.Bytes()) {
			return &Error{Code: "log_broken", Message: "a line of the security log does not parse", Exit: exitIntegrity}
		}
		if err := emit(json.RawMessage(scan.Bytes())); err != nil {
			return err
		}
	}
	return scan.Err()
}
