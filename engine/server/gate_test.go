package server

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/fault"
)

func TestGateVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/vectors/gate.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Path, Header, Expect                         string
		Trusted, Fresh, Inside, Physical, Sharing, Require bool
		Authorization                                      []string
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	keys := map[string]accesskey.Access{"master": {MasterScoped: true}, "agent": {Audience: address.Address{1}}}
	validate := func(s string) (accesskey.Access, error) {
		if a, ok := keys[s]; ok {
			return a, nil
		}
		return accesskey.Access{}, fault.AccessRevoked
	}
	same := func(_ accesskey.Access, header string) bool { return header == "own" }
	for _, c := range cases {
		method := "GET"
		if _, verb, _ := agentRoute(c.Path); verb != "" || inference(c.Path) {
			method = "POST"
		}
		_, err := decide(request{
			method: method, path: c.Path, public: public(c.Path), trusted: c.Trusted, physical: c.Physical || c.Trusted, inside: c.Inside, configured: !c.Fresh,
			authorization: c.Authorization, agentHeaders: []string{c.Header}, peerInference: c.Sharing, requireChannel: c.Require,
		}, validate, same)
		got := "pass"
		if err != nil {
			got = fault.Of(err).Public()
		}
		if got != c.Expect {
			t.Errorf("%s: %q, want %q", c.Name, got, c.Expect)
		}
	}
}

// TestGateLaws holds for every request, whatever the rows say: nobody comes in
// from outside without a valid key, an agent's key never reaches further than
// the owner's, and what needs the channel comes through it.
func TestGateLaws(t *testing.T) {
	t.Parallel()
	owner, agent := accesskey.Access{MasterScoped: true}, accesskey.Access{Audience: address.Address{1}}
	validate := func(s string) (accesskey.Access, error) {
		switch s {
		case "owner":
			return owner, nil
		case "agent":
			return agent, nil
		}
		return accesskey.Access{}, fault.AccessRevoked
	}
	same := func(_ accesskey.Access, header string) bool { return header == "own" }
	paths := []string{"/", "/health", "/models", "/chat/completions", "/agents", "/memory/ingest", "/admin/status", "/admin", "/adminx", "/tasks/" + agents.DefaultID, "/agents/" + agents.DefaultID + "/run", "/agents/" + agents.DefaultID + "/dispatch", "/pair", "/secure/session"}
	rapid.Check(t, func(t *rapid.T) {
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		q := request{
			method: rapid.SampledFrom([]string{"GET", "POST", "DELETE", "HEAD"}).Draw(t, "method"), path: rapid.SampledFrom(paths).Draw(t, "path"),
			inside: flag("inside"), physical: flag("physical"), configured: flag("configured"), peerInference: flag("sharing"), requireChannel: flag("require"),
			authorization: rapid.SliceOfN(rapid.SampledFrom([]string{"Bearer owner", "bearer agent", "Bearer stranger", "Basic owner", "Bearer", ""}), 0, 2).Draw(t, "authorization"),
			agentHeaders:  rapid.SliceOfN(rapid.SampledFrom([]string{"", "own", "other"}), 0, 3).Draw(t, "headers"),
		}
		q.public, q.trusted = public(q.path), q.physical && flag("trusted")
		v, err := decide(q, validate, same)
		if q.public {
			return
		}
		bearer, _ := bearerOf(q.authorization)
		access, invalid := validate(bearer)
		switch {
		case err == nil && !q.trusted && (invalid != nil || !q.configured || !v.known):
			t.Errorf("a stranger comes in: %+v", q)
		case err == nil && invalid == nil && !access.MasterScoped && !v.known:
			t.Errorf("an agent's key is taken for the owner: %+v", q)
		case err == nil && v.known && !v.access.MasterScoped && (admin(q.path) || slices.Contains(q.agentHeaders, "other")):
			t.Errorf("an agent's key reaches further than its agent: %+v", q)
		case err == nil && !q.physical && !q.inside && (q.requireChannel || needsChannel(q.method, q.path)):
			t.Errorf("in the open: %+v", q)
		case err == nil:
			q.authorization = []string{"Bearer owner"}
			if _, err := decide(q, validate, same); err != nil && q.configured {
				t.Errorf("the owner is refused where another is not: %+v, %v", q, err)
			}
		}
	})
}

func TestVolunteeredBearerOnLoopback(t *testing.T) {
	t.Parallel()
	agent := accesskey.Access{Audience: address.Address{1}}
	validate := func(s string) (accesskey.Access, error) {
		if s == "good" {
			return agent, nil
		}
		return accesskey.Access{}, fault.AccessRevoked
	}
	q := request{method: "GET", path: "/agents", trusted: true, configured: true}
	for bearer, want := range map[string]bool{"good": true, "bad": false} {
		q.authorization = []string{"Bearer " + bearer}
		v, err := decide(q, validate, nil)
		if err != nil || v.known != want {
			t.Errorf("%s: confined %v, %v", bearer, v.known, err)
		}
	}
	q.path = "/admin/status"
	q.authorization = []string{"Bearer good"}
	if _, err := decide(q, validate, nil); !errors.Is(err, fault.AgentScopeGate) {
		t.Errorf("an agent's key on /admin over loopback: %v", err)
	}
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/": "/", "/v1": "/", "/v1/": "/", "/v1/models": "/models", "/api/models": "/models", "/v1/api/models": "/models", "/v1/v1/models": "/v1/models",
		"/v1x/models": "/v1x/models", "/apimodels": "/apimodels", "/models?x=/v1": "/models", "/models/": "/models/", "/%6dodels": "/%6dodels", "//models": "//models", "/v1/api": "/", "/api/v1/x": "/v1/x", "?": "",
	} {
		if got := normalise(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"/v1/api/x?y", "/", "", "/v1", "/api/../x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := normalise(s)
		if len(got) > len(s)+1 || len(got) > 0 && s != "" && s[0] == '/' && got[0] != '/' {
			t.Fatalf("%q became %q", s, got)
		}
		for _, p := range []string{"/secure/call", "/pair"} {
			if got == p && bodyLimit(got) == 0 {
				t.Fatal("no limit")
			}
		}
	})
}

func TestAllowOrigin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list    []string
		origin  string
		trusted bool
		want    string
		vary    bool
	}{
		{nil, "http://localhost:3000", true, "http://localhost:3000", true},
		{nil, "http://localhost:3000", false, "", false},
		{nil, "https://evil.example", true, "", false},
		{[]string{"*"}, "app://obsidian.md", false, "*", false},
		{[]string{"*"}, "", false, "*", false},
		{[]string{"https://a.example"}, "https://a.example", false, "https://a.example", true},
		{[]string{"https://a.example"}, "https://b.example", false, "", false},
		{[]string{"https://a.example"}, "https://a.example.evil", true, "", false},
	} {
		if got, vary := allowOrigin(c.list, c.origin, c.trusted); got != c.want || vary != c.vary {
			t.Errorf("%v %q trusted %v: %q vary %v", c.list, c.origin, c.trusted, got, vary)
		}
	}
}
