package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/agents"
)

// TestGreetAgent: the host names an agent that can be paired, or how to let
// one be.
func TestGreetAgent(t *testing.T) {
	t.Parallel()
	p := bridge.Portable()
	p.Advertiser, p.Browser = nil, nil
	e, err := engine.Open(t.Context(), p, engine.Config{Home: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	created, err := e.FirstStart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	created.Phrase.Destroy()
	var told bytes.Buffer
	a := &app{System: System{Stderr: &told}}
	a.term = newTerm(a)
	greet := func() string {
		told.Reset()
		a.greetAgent(e, "http://127.0.0.1:1")
		return told.String()
	}
	own := regexp.MustCompile(`pair http://127\.0\.0\.1:1/(\S+)@`)
	first := own.FindStringSubmatch(greet())
	if first == nil {
		t.Fatalf("an agent that is advertised: %s", &told)
	}
	if _, err := e.Agents.Update(t.Context(), first[1], func(d *agents.Draft) { d.BonjourEnabled = false }); err != nil {
		t.Fatal(err)
	}
	if text := greet(); own.MatchString(text) || !strings.Contains(text, "agents bonjour Assistant on") {
		t.Errorf("none is advertised: %s", text)
	}
	second, err := e.Agents.Create(t.Context(), agents.Draft{Name: "Zoe", BonjourEnabled: true})
	if err == nil {
		_, err = e.Agents.Assign(t.Context(), second.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := own.FindStringSubmatch(greet()); got == nil || got[1] != second.ID {
		t.Errorf("the second is: %s", &told)
	}
}
