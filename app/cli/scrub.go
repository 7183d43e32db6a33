package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"osaurus/engine/control"
	"osaurus/engine/eventlog"
)

// scrubber takes out of texts what tells of people: names it was given, paths,
// addresses, ids, and whatever looks like a secret.
type scrubber struct {
	names *strings.Replacer
}

// scrubber learns the names that this home knows.
func (a *app) scrubber(ctx context.Context, c *control.Client) (*scrubber, error) {
	known := map[string]string{a.home: "~"}
	if home := a.Getenv("HOME"); home != "" && home != "/" {
		known[absolute(home)] = "~"
	}
	if host, err := os.Hostname(); err == nil {
		known[host] = "this-host"
	}
	id, err := c.Identity(ctx, false)
	if err != nil {
		return nil, err
	}
	known[id.DeviceName] = "this-host"
	agents, err := c.Agents(ctx)
	if err != nil {
		return nil, err
	}
	for i, x := range agents {
		if !x.BuiltIn {
			known[x.Name] = fmt.Sprintf("agent-%d", i+1)
		}
	}
	// The report is for a host in trouble: peers it cannot read are in nothing
	// that it says either.
	peers, _ := c.Peers(ctx) //nolint:errcheck // see above
	for i, p := range peers {
		known[p.Name] = fmt.Sprintf("peer-%d", i+1)
	}
	return newScrubber(known), nil
}

// newScrubber replaces the longest names first; a name within another one
// must not leave half of it.
func newScrubber(known map[string]string) *scrubber {
	var names []string
	for name := range known {
		if len(name) > 1 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var pairs []string
	for _, name := range names {
		pairs = append(pairs, name, known[name])
	}
	return &scrubber{strings.NewReplacer(pairs...)}
}

// telling are the forms that are shortened or hidden wherever they stand.
var telling = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(https?|osaurus|rediss?)://[^\s"'<>]+`), "$1://…"},
	{regexp.MustCompile(`\b(0x[0-9a-fA-F]{4})[0-9a-fA-F]{8,}\b`), "$1…"},
	{regexp.MustCompile(`\b([0-9a-fA-F]{8})-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b`), "$1…"},
	{regexp.MustCompile(`[A-Za-z0-9+/_-]{32,}={0,2}`), "…"},
	{regexp.MustCompile(`\b[\w.+-]+@[\w-]+\.[\w.]+\b`), "…@…"},
	{regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`), "an IP address"},
	{regexp.MustCompile(`(^|[\s"'(:=])/(home|Users|root|tmp|var|media|mnt)/[^\s"':]*`), "$1/…"},
}

func (s *scrubber) text(text string) string {
	text = s.names.Replace(eventlog.Redact(text))
	for _, t := range telling {
		text = t.pattern.ReplaceAllString(text, t.with)
	}
	return text
}

// routeWords are the parts of a path that are ours; any other may be somebody's.
var routeWords = regexp.MustCompile(`^(v1|api|health|models|chat|completions|agents|run|dispatch|tasks|memory|ingest|pair|challenge|pair-invite|secure|session|call|admin|status|)$`)

// route keeps the words of a path that belong to us and hides the others.
func (s *scrubber) route(path string) string {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if !routeWords.MatchString(p) {
			parts[i] = "…"
		}
	}
	return strings.Join(parts, "/")
}

// eventFields are the fields of events that tell of the host alone. Others stay
// out: labels, addresses, ids, paths.
var eventFields = []string{
	"agents", "attachments", "bytes", "count", "encrypted", "error", "expiration", "failed", "files", "kind", "mode", "reason", "status", "stores", "validity", "version",
}

// events writes the last events of the security log.
func (s *scrubber) events(ctx context.Context, c *control.Client) ([]byte, error) {
	var lines [][]byte
	err := c.Log(ctx, func(raw json.RawMessage) error {
		line, err := s.event(raw)
		if err != nil {
			return err
		}
		lines = append(lines, line)
		if len(lines) > reportEvents {
			lines = lines[1:]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(bytes.Join(lines, []byte("\n")), '\n'), nil
}

func (s *scrubber) event(raw []byte) ([]byte, error) {
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	kept := map[string]any{}
	for _, name := range append([]string{"seq", "time", "event"}, eventFields...) {
		switch v := all[name].(type) {
		case nil:
		case string:
			kept[name] = s.text(v)
		case float64, bool:
			kept[name] = v
		}
	}
	return json.Marshal(kept)
}
