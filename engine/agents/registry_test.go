package agents

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

func TestANewHomeHasTheBuiltInAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	list := h.registry.List()
	if len(list) != 1 || list[0].ID != DefaultID || !list[0].BuiltIn || !list[0].Address.IsZero() {
		t.Errorf("%+v", list)
	}
	if entries, _ := os.ReadDir(h.dir()); len(entries) != 0 {
		t.Errorf("opening wrote %v", entries)
	}
}

func TestTheBuiltInAgentIsEditedAndNothingElse(t *testing.T) {
	t.Parallel()
	h := restored(t)
	r, ctx := h.registry, t.Context()
	if _, err := r.Update(ctx, DefaultID, func(d *Draft) { d.Model, d.BonjourEnabled = "llama", true }); err != nil {
		t.Fatal(err)
	}
	_, assign := r.Assign(ctx, DefaultID)
	_, rotate := r.Rotate(ctx, DefaultID)
	_, revoke := r.Revoke(ctx, DefaultID)
	for name, err := range map[string]error{"assign": assign, "rotate": rotate, "revoke": revoke, "delete": r.Delete(ctx, DefaultID)} {
		if !errors.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.open()
	if a, ok := h.registry.Get(DefaultID); !ok || a.Model != "llama" || a.BonjourEnabled || !a.BuiltIn {
		t.Errorf("%+v", a)
	}
}

// Whatever a file says, the built-in agent is built in, not advertised and
// nobody finds it by an address.
func TestTheBuiltInAgentHasNoAddress(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writeFile(DefaultID+".json", `{"version":1,"id":"`+DefaultID+`","name":"Osaurus","bonjour_enabled":true,"path":{"index":0},"address":"`+address1+`"}`)
	h.open()
	a, ok := h.registry.Get(DefaultID)
	if !ok || !a.BuiltIn || a.BonjourEnabled {
		t.Errorf("%+v", a)
	}
	if _, ok := h.registry.ByAddress(a.Address); ok || len(h.registry.Addresses()) != 0 {
		t.Error("the built-in agent is found by address")
	}
	if _, err := h.registry.Signer(t.Context(), a.Address); !errors.Is(err, fault.UnknownAgentAddress) {
		t.Errorf("signer: %v", err)
	}
}

func TestCreateAndReopen(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	made, err := h.registry.Create(t.Context(), Draft{Name: " Ada  Lovelace ", Description: "d", Model: "m", SystemPrompt: "p", BonjourEnabled: true, AllowPeerMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != strings.ToUpper(made.ID) || made.Name != "Ada Lovelace" || made.Created != epoch.Unix() || made.Updated != epoch.Unix() || made.Path != nil {
		t.Errorf("%+v", made)
	}
	h.now = h.now.Add(time.Minute)
	changed, err := h.registry.Update(t.Context(), strings.ToLower(made.ID), func(d *Draft) { d.Model = "n" })
	if err != nil || changed.Model != "n" || changed.Updated != epoch.Unix()+60 || changed.Created != made.Created {
		t.Errorf("%+v, %v", changed, err)
	}
	h.open()
	if again, ok := h.registry.Get(made.ID); !ok || fmt.Sprint(again) != fmt.Sprint(changed) {
		t.Errorf("reopened as %+v", again)
	}
	info, err := os.Stat(filepath.Join(h.dir(), made.ID+".json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// Whatever the random source does, a record is never overwritten by another.
func TestRandomnessThatRepeats(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.registry.c.Rand = bytes.NewReader(make([]byte, 48))
	a := h.create("Ada")
	if _, err := h.registry.Create(t.Context(), Draft{Name: "Eve"}); !errors.Is(err, fault.Exists) {
		t.Errorf("got %v", err)
	}
	h.writeFile(a.ID+".json", "damaged")
	h.open()
	h.registry.c.Rand = bytes.NewReader(make([]byte, 16))
	if _, err := h.registry.Create(t.Context(), Draft{Name: "Eve"}); !errors.Is(err, fault.Exists) || string(h.file(a.ID)) != "damaged" {
		t.Errorf("got %v", err)
	}
	h.registry.c.Rand = bytes.NewReader(nil)
	if _, err := h.registry.Create(t.Context(), Draft{Name: "Eve"}); err == nil {
		t.Error("created without randomness")
	}
}

func TestUpdateRefusesABadDraft(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a := h.create("Ada")
	before := h.file(a.ID)
	if _, err := h.registry.Update(t.Context(), a.ID, func(d *Draft) { d.Name = "" }); !errors.Is(err, fault.Usage) {
		t.Errorf("got %v", err)
	}
	if string(h.file(a.ID)) != string(before) {
		t.Error("the record changed")
	}
	if _, err := h.registry.Update(t.Context(), id1, func(*Draft) {}); !errors.Is(err, fault.AgentNotFound) {
		t.Errorf("unknown agent: %v", err)
	}
}

func TestMaxAgents(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	v := *h.registry.view.Load()
	v.agents = map[string]Agent{DefaultID: v.agents[DefaultID]}
	for i := range MaxAgents - 1 {
		id := fmt.Sprintf("%08X-0000-4000-8000-000000000000", i)
		v.agents[id] = Agent{ID: id, Name: "x"}
	}
	h.registry.show(v)
	h.create("the last")
	if _, err := h.registry.Create(t.Context(), Draft{Name: "one more"}); !errors.Is(err, fault.Usage) {
		t.Errorf("got %v", err)
	}
}

func TestListIsInOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, name := range []string{"first", "second", "third"} {
		h.create(name)
		h.now = h.now.Add(time.Hour * 24 * 365 * 40) // further than 32 bits of seconds
	}
	if got := fmt.Sprint(names(h.registry.List())); got != "[Osaurus first second third]" {
		t.Errorf("%s", got)
	}
	if refs := h.registry.Refs(); len(refs) != 4 || !refs[0].BuiltIn || refs[1].Name != "first" {
		t.Errorf("%+v", refs)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	for in, want := range map[string]error{
		a.ID:                                   nil,
		strings.ToLower(a.ID):                  nil,
		a.Address.String():                     nil,
		a.Address.Lower():                      nil,
		strings.ToUpper(a.Address.Lower()[2:]): nil,
		id1:                                    fault.AgentNotFound,
		address1:                               fault.AgentNotFound,
		(address.Address{}).Lower():            fault.AgentNotFound,
		"":                                     fault.InvalidAgentID,
		"Ada":                                  fault.InvalidAgentID,
		"{" + a.ID + "}":                       fault.InvalidAgentID,
		"urn:uuid:" + a.ID:                     fault.InvalidAgentID,
		strings.ReplaceAll(a.ID, "-", ""):      fault.InvalidAgentID,
		a.Address.String()[:41]:                fault.InvalidAgentID,
	} {
		got, err := h.registry.Resolve(in)
		if !errors.Is(err, want) || want == nil && (err != nil || got.ID != a.ID) {
			t.Errorf("%q: %s, %v; want %v", in, got.ID, err, want)
		}
	}
}

func TestObserversHearOfEachChangeOnce(t *testing.T) {
	t.Parallel()
	h := restored(t)
	calls := 0
	var seen int
	h.registry.OnChange(func() { calls, seen = calls+1, len(h.registry.List()) })
	ctx, r := t.Context(), h.registry
	var a Agent
	must := func(_ Agent, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want int
	}{
		{"create", func() { a = h.create("Ada") }, 1},
		{"assign", func() { must(r.Assign(ctx, a.ID)) }, 1},
		{"assign again", func() { must(r.Assign(ctx, a.ID)) }, 0},
		{"update", func() { must(r.Update(ctx, a.ID, func(d *Draft) { d.Model = "m" })) }, 1},
		{"rotate", func() { must(r.Rotate(ctx, a.ID)) }, 1},
		{"revoke", func() { must(r.Revoke(ctx, a.ID)) }, 1},
		{"revoke again", func() { must(r.Revoke(ctx, a.ID)) }, 0},
		{"lock", r.Lock, 1},
		{"a refused change", func() { _, _ = r.Create(ctx, Draft{}) }, 0},
		{"delete", func() {
			if err := r.Delete(ctx, a.ID); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		calls = 0
		if step.do(); calls != step.want {
			t.Errorf("%s: %d calls, want %d", step.name, calls, step.want)
		}
	}
	if seen != 1 {
		t.Errorf("the last observer saw %d agents", seen)
	}
}

func TestUnknownAgents(t *testing.T) {
	t.Parallel()
	h := restored(t)
	r, ctx := h.registry, t.Context()
	_, assign := r.Assign(ctx, id1)
	_, rotate := r.Rotate(ctx, id1)
	_, revoke := r.Revoke(ctx, id1)
	for name, err := range map[string]error{"assign": assign, "rotate": rotate, "revoke": revoke, "delete": r.Delete(ctx, id1)} {
		if !errors.Is(err, fault.AgentNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := r.ByAddress(address.Address{}); ok {
		t.Error("no address is an agent's")
	}
}
