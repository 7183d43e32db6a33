package discovery

import (
	"encoding/json"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"osaurus/engine/address"
)

const id = "5B7C1D2E-0000-4000-8000-0000000000AA"

func alice(t testing.TB) address.Address {
	t.Helper()
	a, err := address.Parse("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestServiceNames(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/vectors/instances.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Expect, Name, ID, Service string }
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		got := Instance{Name: c.Name, AgentID: c.ID}.ServiceName()
		if got != c.Service || len(got) > MaxInstance || !utf8.ValidString(got) {
			t.Errorf("%q: got %q (%d bytes), want %q", c.Name, got, len(got), c.Service)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"🦕🦕", 6, "🦕"}, {"🦕", 0, ""}, {"abc", 3, "abc"}, {"abc", 2, "ab"}, {"", 5, ""}, {"é", 1, ""}} {
		if got := Cut(c.s, c.n); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
}

func TestTXT(t *testing.T) {
	t.Parallel()
	i := Instance{AgentID: id, Name: "A", Description: strings.Repeat("d", MaxDescription+1)}
	if txt := i.TXT(); txt["osc"] != "" || txt["address"] != "" || len(txt["description"]) != MaxDescription {
		t.Errorf("without an address: %v", txt)
	}
	i.Address = alice(t)
	if txt := i.TXT(); txt["pq"] != "" || txt["osc"] != "1" || txt["address"] != "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" {
		t.Errorf("with an address: %v", txt)
	}
	i.PQ = true
	if txt := i.TXT(); txt["pq"] != "1" {
		t.Errorf("%v", txt)
	}
	if back, ok := ParseTXT(i.TXT()); !ok || !back.PQ {
		t.Errorf("%+v", back)
	}
	i.Address = address.Address{}
	if txt := i.TXT(); txt["pq"] != "" {
		t.Errorf("without an address: %v", txt)
	}
	back, ok := ParseTXT(i.TXT())
	if !ok || back.Address != i.Address || back.AgentID != id || back.Unverifiable {
		t.Errorf("round trip: %+v", back)
	}
}

func TestParseHostileTXT(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		txt          map[string]string
		ok           bool
		unverifiable bool
	}{
		"no id":                  {map[string]string{"name": "x"}, false, false},
		"id in braces":           {map[string]string{"id": "{" + id + "}"}, false, false},
		"channel but no address": {map[string]string{"id": id, "osc": "1"}, true, true},
		"channel, bad address":   {map[string]string{"id": id, "osc": "1", "address": "0x12"}, true, true},
		"legacy without both":    {map[string]string{"id": id}, true, false},
		"control characters":     {map[string]string{"id": id, "name": "a\x1b[31mb\u202ec\x00"}, true, false},
	} {
		i, ok := ParseTXT(c.txt)
		if ok != c.ok || i.Unverifiable != c.unverifiable {
			t.Errorf("%s: ok %v, unverifiable %v", name, ok, i.Unverifiable)
		}
		if strings.ContainsAny(i.Name, "\x1b\x00\u202e") {
			t.Errorf("%s: name %q can move the terminal", name, i.Name)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	old := Instance{AgentID: id, Name: "A", Port: 1, Description: "d"}
	change := func(f func(*Instance)) Instance { n := old; f(&n); return n }
	for name, c := range map[string]struct {
		before *Instance
		now    Instance
		want   Change
	}{
		"new":         {nil, old, Publish},
		"same":        {&old, old, None},
		"renamed":     {&old, change(func(i *Instance) { i.Name = "B" }), Publish},
		"moved":       {&old, change(func(i *Instance) { i.Port = 2 }), Publish},
		"description": {&old, change(func(i *Instance) { i.Description = "e" }), UpdateTXT},
		"address":     {&old, change(func(i *Instance) { i.Address = alice(t) }), UpdateTXT},
	} {
		if got := Compare(c.before, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func FuzzParseTXT(f *testing.F) {
	f.Add(id, "name", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "1")
	f.Add("", "\xff", "x", "")
	f.Fuzz(func(t *testing.T, id, name, addr, osc string) {
		i, ok := ParseTXT(map[string]string{"id": id, "name": name, "address": addr, "osc": osc})
		if !ok {
			return
		}
		again, ok := ParseTXT(i.TXT())
		if !ok || again.AgentID != i.AgentID || again.Name != i.Name || again.Address != i.Address {
			t.Fatalf("%+v came back as %+v", i, again)
		}
		if s := i.ServiceName(); len(s) > MaxInstance {
			t.Fatalf("%d bytes in %q", len(s), s)
		}
		if !maps.Equal(i.TXT(), again.TXT()) {
			t.Fatal("TXT does not round-trip")
		}
	})
}

func TestBaseURL(t *testing.T) {
	t.Parallel()
	for want, in := range map[string]Instance{
		"http://studio.local:1337":     {Host: "studio.local", Port: 1337},
		"http://192.0.2.7:80":          {Host: "studio.local", Port: 80, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1")}},
		"http://[2001:db8::1]:1337":    {Port: 1337, IPs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
		"http://[fe80::1%25eth0]:1337": {Port: 1337, IPs: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
	} {
		got := in.BaseURL()
		if u, err := url.Parse(got); got != want || err != nil || u.Port() == "" {
			t.Errorf("%q, want %q; %v", got, want, err)
		}
	}
}
