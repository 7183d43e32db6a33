package memory

import (
	"strings"
	"testing"
)

func TestPinned(t *testing.T) {
	t.Parallel()
	m, _, _ := open(t)
	ctx := t.Context()
	for _, f := range []struct {
		agent, content string
		salience       float64
	}{{"A", "the walrus is called Wally", 0.7}, {"A", "walrus food is fish", 0.9}, {"A", "rain", 0.1}, {"B", "walrus of another", 0.7}} {
		if err := m.Pin(ctx, f.agent, f.content, f.salience, "source:sandbox:agent-x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Ingest(ctx, "A", "c", []Turn{{User: "walrus said"}}); err != nil {
		t.Fatal(err)
	}
	found, err := m.FindPinned(ctx, "A", "walrus", 10)
	if err != nil || len(found) != 2 || found[0].Salience < 0.7 || found[0].Created.IsZero() {
		t.Errorf("%+v %v", found, err)
	}
	if all, err := m.FindPinned(ctx, "A", "?!", 2); err != nil || len(all) != 2 || all[0].Content != "walrus food is fish" {
		t.Errorf("%+v %v", all, err)
	}
	for _, bad := range []string{"", " ", strings.Repeat("x", MaxFact+1)} {
		if err := m.Pin(ctx, "A", bad, 0.7, ""); err == nil {
			t.Errorf("%d bytes were pinned", len(bad))
		}
	}
	if err := m.Pin(ctx, "A", strings.Repeat("x", MaxFact), 0.7, ""); err != nil {
		t.Error(err)
	}
}
