package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine"
	"osaurus/engine/atomicfile"
	"osaurus/engine/control"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

// reportEvents is how many of the last events of the security log a support
// archive holds.
const reportEvents = 500

// What a support archive holds is copied field by field into the types below:
// what nobody thought of stays out.
type (
	reportedStatus struct {
		Port         int    `json:"port"`
		Exposed      bool   `json:"exposed"`
		Identity     string `json:"identity"`
		Acknowledged bool   `json:"phrase_acknowledged"`
		Keystore     string `json:"keystore"`
		Unlocked     bool   `json:"agents_unlocked"`
		Agents       int    `json:"agents"`
		Keys         int    `json:"access_keys"`
		Peers        int    `json:"peers"`
		Provider     bool   `json:"provider_chosen"`
		InFlight     int    `json:"in_flight"`
		Approvers    bool   `json:"approvers_attached"`
		LogSeq       uint64 `json:"log_seq"`
	}
	reportedSettings struct {
		Port           int  `json:"port"`
		Expose         bool `json:"expose"`
		LoopbackTrust  bool `json:"loopback_trust"`
		RequireChannel bool `json:"require_channel"`
		PeerInference  bool `json:"peer_inference"`
		CORS           int  `json:"cors_entries"`
		MaxConnections int  `json:"max_connections"`
		OwnRelay       bool `json:"own_relay"`
	}
	reportedStore struct {
		ID     string `json:"id"`
		Bytes  int64  `json:"bytes"`
		Format string `json:"format"`
		State  string `json:"state"`
		Issue  string `json:"issue,omitempty"`
	}
	reportedStorage struct {
		Posture   string          `json:"posture"`
		Key       string          `json:"key"`
		Operation string          `json:"operation,omitempty"`
		Stores    []reportedStore `json:"stores"`
	}
	reportedRequest struct {
		Time      time.Time `json:"time"`
		Method    string    `json:"method"`
		Path      string    `json:"path"`
		Status    int       `json:"status"`
		Micros    int64     `json:"micros"`
		Transport string    `json:"transport"`
	}
	reportedVersions struct {
		Version string            `json:"version"`
		Go      string            `json:"go"`
		System  string            `json:"system"`
		CPUs    int               `json:"cpus"`
		Build   map[string]string `json:"build"`
		Modules map[string]string `json:"modules"`
	}
)

// reportReadme explains the archive to who opens it, its owner first.
const reportReadme = `A support archive of osaurus. Read it before you hand it on.

  versions.json   the program, what it was built with, the modules linked
  doctor.json     what "osaurus doctor" says
  status.json     what the host is doing, as counts
  settings.json   settings, without the names of origins and relays
  storage.json    the stores: size, format and state
  log.jsonl       the last %d events of the security log
  requests.json   the last requests: when, which route, how they ended

Left out everywhere: keys, prompts, answers, bodies, titles of chats, what is
remembered, labels, where models run. Names of agents and hosts are numbered,
addresses and ids are shortened, your home directory is written ~.
`

func (a *app) reportCommand() *cobra.Command {
	return command("host", "bundle-report [FILE]", "Write an archive for support, without secrets or names", "  osaurus bundle-report\n  osaurus bundle-report report.tar.gz", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		now := time.Now().UTC()
		file := "osaurus-report-" + now.Format("20060102T150405Z") + ".tar.gz"
		if len(args) == 1 {
			file = args[0]
		}
		if _, err := os.Lstat(file); err == nil {
			return usage("osaurus bundle-report OTHER-FILE", "%s is there already", file)
		}
		var archive []byte
		err := a.withHost(ctx, func(ctx context.Context, c *control.Client) (err error) {
			archive, err = a.bundle(ctx, c, now)
			return err
		})
		if err != nil {
			return err
		}
		if err := atomicfile.Write(file, archive); err != nil {
			return err
		}
		a.say("Look into it before you hand it on:\n  tar -xzOf %s | less", quoted(file))
		return a.result(map[string]any{"file": file, "bytes": len(archive)}, func() { a.out("%s", file) })
	})
}

// bundle collects the archive. A part that cannot be read is said in its place.
func (a *app) bundle(ctx context.Context, c *control.Client, now time.Time) ([]byte, error) {
	scrub, err := a.scrubber(ctx, c)
	if err != nil {
		return nil, err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	parts := []struct {
		name string
		of   func() ([]byte, error)
	}{
		{"README.txt", func() ([]byte, error) { return fmt.Appendf(nil, reportReadme, reportEvents), nil }},
		{"versions.json", func() ([]byte, error) { return document(versions()) }},
		{"doctor.json", func() ([]byte, error) { return document(scrub.findings(s.Findings)) }},
		{"status.json", func() ([]byte, error) { return document(statusOf(s)) }},
		{"settings.json", func() ([]byte, error) {
			set, err := c.Settings(ctx)
			return documentOr(settingsOf(set), err)
		}},
		{"storage.json", func() ([]byte, error) {
			st, err := c.Storage(ctx)
			return documentOr(scrub.storage(st), err)
		}},
		{"log.jsonl", func() ([]byte, error) { return scrub.events(ctx, c) }},
		{"requests.json", func() ([]byte, error) {
			list, err := c.Requests(ctx)
			return documentOr(scrub.requests(list), err)
		}},
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, p := range parts {
		body, err := p.of()
		if err != nil {
			body = []byte("not available: " + scrub.text(err.Error()) + "\n")
		}
		if err := t.WriteHeader(&tar.Header{Name: "osaurus-report/" + p.name, Mode: 0o600, Size: int64(len(body)), ModTime: now, Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := t.Write(body); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func document(v any) ([]byte, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	return append(raw, '\n'), err
}

func documentOr(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return document(v)
}

func statusOf(s engine.Status) reportedStatus {
	return reportedStatus{s.Port, s.Exposed, s.Identity, s.Acknowledged, s.Keystore, s.Unlocked, s.Agents, s.Keys, s.Peers, s.Provider != "", s.InFlight, s.Approvers, s.LogSeq}
}

func settingsOf(s settings.Server) reportedSettings {
	return reportedSettings{s.Port, s.Expose, s.LoopbackTrust, s.RequireChannel, s.PeerInference, len(s.CORS), s.MaxConnections, s.RelayDomain != settings.DefaultRelayDomain}
}

// versions says what this program is made of.
func versions() reportedVersions {
	v := reportedVersions{Version: Version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Build: map[string]string{}, Modules: map[string]string{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "-tags", "-trimpath", "-buildmode", "CGO_ENABLED", "vcs.revision", "vcs.time", "vcs.modified":
			v.Build[s.Key] = s.Value
		}
	}
	for _, m := range info.Deps {
		v.Modules[m.Path] = m.Version
	}
	return v
}

func (s *scrubber) findings(list []engine.Finding) []engine.Finding {
	out := make([]engine.Finding, 0, len(list))
	for _, f := range list {
		if f.ID == "provider" && f.Level == "ok" {
			f.Title = "Models run at a provider"
		}
		out = append(out, engine.Finding{ID: f.ID, Level: f.Level, Title: s.text(f.Title), Text: s.text(f.Text), Next: s.text(f.Next)})
	}
	return out
}

func (s *scrubber) storage(st storage.Status) reportedStorage {
	out := reportedStorage{Posture: string(st.Posture), Key: string(st.Key.State), Operation: st.Operation, Stores: []reportedStore{}}
	for _, x := range st.Stores {
		id, _, _ := strings.Cut(string(x.ID), ":") // of whose plugin or agent is nobody's business
		out.Stores = append(out.Stores, reportedStore{id, x.Bytes, x.Format, x.State, string(x.Issue)})
	}
	return out
}

func (s *scrubber) requests(list []server.Entry) []reportedRequest {
	out := make([]reportedRequest, 0, len(list))
	for _, r := range list {
		out = append(out, reportedRequest{r.Time, r.Method, s.route(r.Path), r.Status, r.Duration.Microseconds(), r.Transport})
	}
	return out
}

// absolute is a path's clean form, for comparing.
func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}
