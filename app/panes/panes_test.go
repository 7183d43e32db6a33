package panes_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/app/panes"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a real engine behind its control socket.
type host struct {
	*control.Client
	engine *engine.Engine
	home   string
}

func startHost(t *testing.T) host {
	t.Helper()
	// A control socket's path is short, so homes are too.
	home, err := os.MkdirTemp("", "osr")
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Ports{
		Keystore: func(home string, p secret.Bytes) (keystore.Store, error) {
			return keystore.OpenFile(filepath.Join(home, "keystore"), p, keystore.FileOptions{MemoryKiB: 8, Passes: 1})
		},
		DeviceName: "studio",
	}, engine.Config{Home: home, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(home, engine.SocketPath)
	l, err := control.ListenSocket(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- control.NewServer(e, func() {}).Serve(ctx, l) }()
	h := host{control.NewClient(socket), e, home}
	t.Cleanup(func() {
		h.Close()
		cancel()
		if err := errors.Join(<-ended, e.Close(context.WithoutCancel(ctx)), os.RemoveAll(home)); err != nil {
			t.Error(err)
		}
	})
	return h
}

// driver drives a model as a renderer would.
type driver struct {
	*panes.Model
	t *testing.T
}

func drive(t *testing.T, h panes.Host, env panes.Env) driver {
	t.Helper()
	if env.Home == "" {
		env.Home = t.TempDir()
	}
	d := driver{panes.New(h, env), t}
	t.Cleanup(d.Close)
	d.settled()
	return d
}

// patience bounds every wait.
const patience = 2 * time.Minute

// until waits for a state of the model.
func (d driver) until(what string, ok func() bool) {
	d.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		_, next := d.Changed()
		if ok() {
			return
		}
		select {
		case <-next:
		case <-end.C:
			d.t.Fatalf("this did not come: %s", what)
		}
	}
}

// settled waits until nothing works and the host was asked since.
func (d driver) settled() {
	d.t.Helper()
	d.until("rest", func() bool { return !d.Busy() && !d.Asking() })
}

func (d driver) refused(action string, values ...string) error {
	return d.Do(panes.Input{Action: action, Values: pairs(values)})
}

func pairs(values []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(values); i += 2 {
		m[values[i]] = values[i+1]
	}
	return m
}

// do chooses an action and waits for its end.
func (d driver) do(action string, values ...string) {
	d.t.Helper()
	if err := d.refused(action, values...); err != nil {
		d.t.Fatalf("%s: %v", action, err)
	}
	d.settled()
}

func (d driver) sheet() *panes.Sheet { return d.View(panes.Identity).Sheet }

// action finds an action on a pane by how its ID begins.
func (d driver) action(p panes.Pane, begins string) (found panes.Action, ok bool) {
	look := func(list []panes.Action) {
		for _, a := range list {
			if !ok && strings.HasPrefix(a.ID, begins) {
				found, ok = a, true
			}
		}
	}
	v := d.View(p)
	for _, b := range v.Banners {
		look(b.Actions)
	}
	var rows func([]panes.Row)
	rows = func(list []panes.Row) {
		for _, r := range list {
			look(r.Actions)
			rows(r.Rows)
		}
	}
	for _, s := range v.Sections {
		look(s.Actions)
		rows(s.Rows)
	}
	return found, ok
}

// choose does the action of a pane whose ID begins so.
func (d driver) choose(p panes.Pane, begins string) {
	d.t.Helper()
	a, ok := d.action(p, begins)
	if !ok {
		d.t.Fatalf("%s offers no %s", p, begins)
	}
	d.do(a.ID)
}

func (d driver) banner(p panes.Pane, begins string) *panes.Banner {
	for _, b := range d.View(p).Banners {
		if strings.HasPrefix(b.ID, begins) {
			return &b
		}
	}
	return nil
}

func (d driver) section(p panes.Pane, id string) *panes.Section {
	for _, s := range d.View(p).Sections {
		if s.ID == id {
			return &s
		}
	}
	return nil
}

func (d driver) mustSection(p panes.Pane, id string) panes.Section {
	d.t.Helper()
	s := d.section(p, id)
	if s == nil {
		d.t.Fatalf("%s has no %s", p, id)
	}
	return *s
}

func badges(r panes.Row) (list []string) {
	for _, b := range r.Badges {
		list = append(list, b.Text)
	}
	return list
}

func fact(facts []panes.Fact, label string) string {
	for _, f := range facts {
		if f.Label == label {
			return f.Value
		}
	}
	return ""
}

// withIdentity creates one through the panes and returns its phrase.
func (d driver) withIdentity() string {
	d.t.Helper()
	d.do("identity-create")
	s := d.sheet()
	if s == nil || s.Kind != "phrase" {
		d.t.Fatalf("no phrase shows: %+v", s)
	}
	phrase := s.Secret.Text()
	d.do("saved")
	return phrase
}

// withAgent makes an agent through the panes and returns its id.
func (d driver) withAgent(name string) string {
	d.t.Helper()
	d.do("agent-create")
	d.do("confirm", "name", name)
	for _, r := range d.mustSection(panes.Agents, "agents").Rows {
		if r.Title == name {
			return r.ID
		}
	}
	d.t.Fatalf("no agent %s: %+v", name, d.sheet())
	return ""
}

// clipboard is one in memory.
type clipboard struct {
	mu   sync.Mutex
	text string
}

func (c *clipboard) Read() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text
}

func (c *clipboard) Write(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = text
}

func TestSetUp(t *testing.T) { // ID-1, ID-2, ID-3, ID-4, ID-7, ID-13
	t.Parallel()
	h := startHost(t)
	d := drive(t, h, panes.Env{})
	if d.section(panes.Identity, "setup") == nil || d.section(panes.Identity, "master") != nil || d.section(panes.Identity, "danger") != nil {
		t.Fatalf("at first: %+v", d.View(panes.Identity).Sections)
	}
	if got := fact(d.mustSection(panes.Identity, "device").Facts, "Name"); got != "studio" {
		t.Errorf("the device's name is %q", got)
	}
	if got := fact(d.mustSection(panes.Identity, "device").Facts, "Secrets"); got != "Encrypted, but the key lies beside the data" {
		t.Errorf("a keystore without a passphrase is called %q", got)
	}
	d.do("identity-create")
	s := d.sheet()
	if s == nil || len(s.Secret.Words()) != 24 || !strings.HasPrefix(s.Secret.Code.Text(), "OSAURUS-") || !strings.Contains(strings.Join(s.Text, " "), "cannot restore the key") {
		t.Fatalf("the setup's result: %+v", s)
	}
	if d.refused("identity-create") == nil {
		t.Error("a second identity can be created behind the sheet")
	}
	d.do("cancel") // later
	if s.Secret.Text() != "" || s.Secret.Code.Text() != "" || d.sheet() != nil {
		t.Error("the phrase is there after it was dismissed")
	}
	if d.banner(panes.Identity, "backup") == nil || fact(d.mustSection(panes.Identity, "master").Facts, "Backup") != "Not confirmed" {
		t.Error("nothing says that the phrase is not saved")
	}
	d.do("phrase-show")
	again := d.sheet()
	if len(again.Secret.Words()) != 24 || again.Secret.Code.Text() != "" {
		t.Error("the phrase does not show again before it is acknowledged")
	}
	d.do("saved")
	if again.Secret.Text() != "" || d.banner(panes.Identity, "backup") != nil || d.refused("phrase-show") == nil {
		t.Error("the phrase can be had after it was acknowledged")
	}
}

func TestSavePhrase(t *testing.T) { // ID-3
	t.Parallel()
	d := drive(t, startHost(t), panes.Env{})
	d.do("identity-create")
	s := d.sheet()
	path := s.Fields[0].Value
	if filepath.Base(path) != "osaurus-recovery-phrase.txt" {
		t.Errorf("the suggested name is %s", path)
	}
	d.do("save", "file", "relative.txt")
	if d.sheet().Error == "" {
		t.Error("a relative path is taken")
	}
	d.do("save", "file", path)
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), "24. "+s.Secret.Words()[23]+"\n") || !strings.Contains(string(raw), "cannot restore the key") {
		t.Fatalf("%q, %v", raw, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if d.sheet().Error != "" || fact(d.sheet().Facts, "Saved to") != path {
		t.Errorf("%+v", d.sheet())
	}
	d.do("save", "file", path)
	if d.sheet().Error == "" {
		t.Error("a file was replaced")
	}
}

func TestTextsOfTheSheetAreCopied(t *testing.T) {
	t.Parallel()
	d := drive(t, startHost(t), panes.Env{})
	d.do("identity-recover")
	d.sheet().Actions[0].ID = "changed"
	if slices.ContainsFunc(d.sheet().Actions, func(a panes.Action) bool { return a.ID == "changed" }) {
		t.Error("a view reaches into the model")
	}
}
