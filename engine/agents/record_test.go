package agents

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

const (
	id1      = "0F0E0D0C-0B0A-4908-8706-050403020100"
	id2      = "1F0E0D0C-0B0A-4908-8706-050403020100"
	address1 = "0x331565e19602986634610f4B33Ff7ad182860036"
)

func recordOf(fields string) string {
	return `{"version":1,"id":"` + id1 + `","name":"Ada"` + fields + `}`
}

// records are files as they may stand on disk; want "" means that they load.
var records = []struct{ name, id, content, want string }{
	{"the least", id1, recordOf(""), ""},
	{"lower-case id inside", id1, strings.ToLower(recordOf("")[:60]) + recordOf("")[60:], ""},
	{"everything", id1, recordOf(`,"description":"a\nb","model":"m","system_prompt":"p","bonjour_enabled":true,"allow_peer_memory":true,"path":{"index":3,"scope":"a1b2c3d4"},"address":"` + address1 + `","retired":[{"address":"` + address1 + `","at":5}],"created_at":1,"updated_at":2`), ""},
	{"a v1 path", id1, recordOf(`,"path":{"index":0},"address":"` + address1 + `"`), ""},
	{"an address whose path was lost", id1, recordOf(`,"address":"` + address1 + `"`), ""},
	{"fields of another version", id1, recordOf(`,"theme":{"colour":"blue"},"n":1.50`), ""},
	{"white space around the name", id1, `{"version":1,"id":"` + id1 + `","name":"  Ada \n Lovelace "}`, ""},
	{"the longest scope", id1, recordOf(`,"path":{"index":0,"scope":"` + strings.Repeat("s", maxScope) + `"}`), ""},
	{"a longer scope", id1, recordOf(`,"path":{"index":0,"scope":"` + strings.Repeat("s", maxScope+1) + `"}`), "out of bounds"},
	{"nothing", id1, "", "does not parse"},
	{"cut short", id1, recordOf("")[:40], "does not parse"},
	{"two values", id1, recordOf("") + "{}", "does not parse"},
	{"a duplicate key", id1, recordOf(`,"name":"Eve"`), "does not parse"},
	{"an own field in another case", id1, recordOf(`,"Address":"` + address1 + `"`), "does not parse"},
	{"an own field with a folded letter", id1, recordOf(`,"\u017fystem_prompt":"x"`), "does not parse"},
	{"an empty list", id1, recordOf(`,"retired":[]`), ""},
	{"an array", id1, "[]", "does not parse"},
	{"null", id1, "null", "another version"},
	{"a later version", id1, strings.Replace(recordOf(""), ":1", ":2", 1), "another version"},
	{"no version", id1, strings.Replace(recordOf(""), "version", "v", 1), "another version"},
	{"another agent's", id2, recordOf(""), "not the record"},
	{"file name in lower case", strings.ToLower(id1), recordOf(""), "not the record"},
	{"file name without dashes", strings.ReplaceAll(id1, "-", ""), strings.ReplaceAll(recordOf(""), "-", ""), "not the record"},
	{"no UUID", "notes", `{"version":1,"id":"notes","name":"x"}`, "not the record"},
	{"no name", id1, `{"version":1,"id":"` + id1 + `"}`, "out of bounds"},
	{"a name that hides", id1, strings.Replace(recordOf(""), "Ada", `A\u202eda`, 1), "out of bounds"},
	{"an index below zero", id1, recordOf(`,"path":{"index":-1}`), "does not parse"},
	{"an index beyond 32 bits", id1, recordOf(`,"path":{"index":4294967296}`), "does not parse"},
	{"an address too short", id1, recordOf(`,"address":"0x33"`), "does not parse"},
	{"a time that is text", id1, recordOf(`,"created_at":"yesterday"`), "does not parse"},
}

func TestParseRecords(t *testing.T) {
	t.Parallel()
	for _, c := range records {
		a, err := parse([]byte(c.content), c.id)
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, fault.StateCorrupt) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			continue
		}
		if err == nil {
			roundTrip(t, a)
		}
	}
}

func roundTrip(t *testing.T, a Agent) {
	t.Helper()
	raw, err := a.encode()
	if errors.Is(err, fault.Usage) {
		return // would be too large
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse(raw, a.ID)
	if err != nil || !reflect.DeepEqual(again, a) {
		t.Fatalf("round trip: %v\n%+v\n%+v", err, a, again)
	}
	if twice, _ := again.encode(); !bytes.Equal(raw, twice) {
		t.Fatal("encoding is not stable")
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, c := range records {
		f.Add([]byte(c.content))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parse(raw, id1)
		if err != nil {
			return
		}
		if a.ID != id1 || a.Name == "" {
			t.Fatalf("an invalid record came out: %+v", a)
		}
		roundTrip(t, a)
	})
}

func TestRecordSizeLimit(t *testing.T) {
	t.Parallel()
	fill := func(n int) []byte {
		return []byte(recordOf("") + strings.Repeat(" ", n-len(recordOf(""))))
	}
	if _, err := parse(fill(maxFile), id1); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := parse(fill(maxFile+1), id1); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("beyond: %v", err)
	}
	// What encode writes, parse reads; one byte more is refused before a write.
	a := Agent{ID: id1, Name: "Ada", Path: &identity.Path{}}
	empty, err := a.encode()
	if err != nil {
		t.Fatal(err)
	}
	for extra, ok := range map[int]bool{0: true, 1: false} {
		a.Path = &identity.Path{Scope: strings.Repeat("s", 1)}
		one, _ := a.encode()
		a.Path.Scope = strings.Repeat("s", 1+maxFile-len(one)+extra)
		raw, err := a.encode()
		if (err == nil) != ok || ok && len(raw) != maxFile {
			t.Errorf("%d bytes over (from %d): %d bytes, %v", extra, len(empty), len(raw), err)
		}
	}
}

func TestRecordsAreReadable(t *testing.T) {
	t.Parallel()
	raw, err := Agent{ID: id1, Name: "R&D <1>"}.encode()
	if want := "{\n  \"created_at\": 0,\n  \"id\": \"" + id1 + "\",\n  \"name\": \"R&D <1>\",\n  \"updated_at\": 0,\n  \"version\": 1\n}\n"; err != nil || string(raw) != want {
		t.Errorf("got %s, %v", raw, err)
	}
}

func TestFieldsOfAnotherVersionSurviveAChange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writeFile(id1+".json", recordOf(`,"theme":{"colour":"blue"},"n":1.50`))
	h.open()
	if _, err := h.registry.Update(t.Context(), id1, func(d *Draft) { d.Name = "Grace" }); err != nil {
		t.Fatal(err)
	}
	raw := string(h.file(id1))
	for _, want := range []string{`"colour": "blue"`, `"n": 1.50`, `"name": "Grace"`} {
		if !strings.Contains(raw, want) {
			t.Errorf("%s is gone from\n%s", want, raw)
		}
	}
}

// A damaged file is reported and left alone; the others load.
func TestDamagedFilesAreLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	bad := map[string]string{
		id1 + ".json":       recordOf("")[:30],
		"notes.json":        "{}",
		DefaultID + ".json": "not JSON",
	}
	for name, content := range bad {
		h.writeFile(name, content)
	}
	h.writeFile(id2+".json", strings.Replace(recordOf(""), id1, id2, 1))
	h.writeFile(".hidden.json", "x")
	h.writeFile("notes.txt", "x")
	if err := os.Mkdir(filepath.Join(h.dir(), "dir.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(h.dir(), id2+".json"), filepath.Join(h.dir(), "link.json")); err != nil {
		t.Fatal(err)
	}
	h.open()
	if got, want := fmt.Sprint(sortedKeys(h.registry.Damaged())), fmt.Sprint([]string{DefaultID + ".json", id1 + ".json", "link.json", "notes.json"}); got != want {
		t.Errorf("damaged %s, want %s", got, want)
	}
	if got := fmt.Sprint(names(h.registry.List())); got != "[Osaurus Ada]" {
		t.Errorf("loaded %s", got)
	}
	if _, err := h.registry.Update(t.Context(), DefaultID, func(d *Draft) { d.Model = "m" }); !errors.Is(err, fault.StateCorrupt) {
		t.Errorf("a change over a damaged file: %v", err)
	}
	h.create("another")
	for name, content := range bad {
		if raw, err := os.ReadFile(filepath.Join(h.dir(), name)); err != nil || string(raw) != content {
			t.Errorf("%s was changed to %q (%v)", name, raw, err)
		}
	}
}

func TestTwoRecordsCannotHaveOneAddress(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, id := range []string{id1, id2} {
		h.writeFile(id+".json", strings.Replace(recordOf(`,"path":{"index":0},"address":"`+address1+`"`), id1, id, 1))
	}
	h.open()
	if got := sortedKeys(h.registry.Damaged()); len(got) != 1 || got[0] != id2+".json" {
		t.Errorf("damaged: %v", got)
	}
	a, err := address.Parse(address1)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := h.registry.ByAddress(a); !ok || got.ID != id1 {
		t.Errorf("the address belongs to %s", got.ID)
	}
}

func TestDraftBounds(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("é", n) }
	for name, c := range map[string]struct {
		d  Draft
		ok bool
	}{
		"the longest name":          {Draft{Name: long(MaxName)}, true},
		"a longer name":             {Draft{Name: long(MaxName + 1)}, false},
		"white space is not a name": {Draft{Name: " \t\n"}, false},
		"the longest description":   {Draft{Name: "x", Description: long(MaxDescription)}, true},
		"a longer description":      {Draft{Name: "x", Description: long(MaxDescription + 1)}, false},
		"the longest model":         {Draft{Name: "x", Model: long(MaxModel)}, true},
		"a longer model":            {Draft{Name: "x", Model: long(MaxModel + 1)}, false},
		"the longest prompt":        {Draft{Name: "x", SystemPrompt: strings.Repeat("p", MaxSystemPrompt)}, true},
		"a longer prompt":           {Draft{Name: "x", SystemPrompt: strings.Repeat("p", MaxSystemPrompt+1)}, false},
		"lines in a description":    {Draft{Name: "x", Description: "a\n\tb"}, true},
		"a bell in a description":   {Draft{Name: "x", Description: "a\ab"}, false},
		"lines in a model":          {Draft{Name: "x", Model: "a\nb"}, false},
		"an escape in a name":       {Draft{Name: "x\x1b[2J"}, false},
		"a right-to-left override":  {Draft{Name: "x\u202e"}, false},
		"a line separator":          {Draft{Name: "x\u2028y"}, true}, // white space: becomes a blank
		"a joined emoji":            {Draft{Name: "👩‍👩‍👧"}, true},
		"not UTF-8":                 {Draft{Name: "x\xff"}, false},
		"a prompt not UTF-8":        {Draft{Name: "x", SystemPrompt: "\xff"}, false},
	} {
		clean, err := c.d.clean()
		if (err == nil) != c.ok || err != nil && !errors.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
		if again, err2 := clean.clean(); err == nil && (err2 != nil || again != clean) {
			t.Errorf("%s: cleaning twice differs (%v)", name, err2)
		}
	}
	if d, err := (Draft{Name: "  Ada \n Lovelace ", Description: " d ", Model: " m "}).clean(); err != nil || d != (Draft{Name: "Ada Lovelace", Description: "d", Model: "m"}) {
		t.Errorf("%+v, %v", d, err)
	}
}
