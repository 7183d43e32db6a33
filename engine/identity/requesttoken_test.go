package identity

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/signature"
)

const knownHeader = "eyJhbGciOiJlczI1NmsrYXBwbGUtYXR0ZXN0IiwidHlwIjoib3NhdXJ1cy1pZCIsInZlciI6NX0"

func mint(t testing.TB, a *Account, signer Signer, r TokenRequest) string {
	t.Helper()
	token, err := a.MintRequestToken(t.Context(), signer, r)
	if err != nil {
		t.Fatal(err)
	}
	return string(token.Expose())
}

func TestMintedTokenOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	m := master(t, aliceHex)
	token := mint(t, a, m, TokenRequest{Audience: "host.local", Action: "GET /v1/models"})
	parts := strings.Split(token, ".")
	payload, err := base64url.Decode(parts[1])
	if err != nil || len(parts) != 4 || parts[0] != knownHeader || parts[3] != "" {
		t.Fatalf("%v, parts %v", err, parts)
	}
	want := `{"act":"GET /v1/models","aud":"host.local","cnt":1,"dev":"` + a.Device().ID + `","exp":1800000060,"iat":1800000000,"iss":"` + aliceAddress + `"}`
	if string(payload) != want {
		t.Errorf("payload\n%s\nwant\n%s", payload, want)
	}
	sig, err := m.Sign(t.Context(), signature.SignedMessage.Digest([]byte(want)))
	if err != nil || parts[2] != sig.Hex() {
		t.Errorf("signature %s", parts[2])
	}
	agent, err := m.Agent(Path{Index: 4294967295})
	if err != nil {
		t.Fatal(err)
	}
	token = mint(t, a, agent, TokenRequest{Audience: "h", Action: "GET /", Agent: &AgentClaim{Parent: m.Address(), Index: 4294967295}})
	payload, _ = base64url.Decode(strings.Split(token, ".")[1])
	want = `{"act":"GET /","aud":"h","cnt":2,"dev":"` + a.Device().ID + `","exp":1800000060,"iat":1800000000,"idx":4294967295,"iss":"0xEBae8f5c410898312d6822633B569442f27c2679","par":"` + aliceAddress + `"}`
	if string(payload) != want {
		t.Errorf("payload\n%s\nwant\n%s", payload, want)
	}
}

func TestMintLimits(t *testing.T) {
	t.Parallel()
	a, m := newWorld(t).open(t), master(t, aliceHex)
	for name, c := range map[string]struct {
		r  TokenRequest
		ok bool
	}{
		"longest host":    {TokenRequest{Audience: strings.Repeat("h", maxAudience), Action: "x"}, true},
		"longer host":     {TokenRequest{Audience: strings.Repeat("h", maxAudience+1), Action: "x"}, false},
		"longest action":  {TokenRequest{Audience: "h", Action: strings.Repeat("x", maxAction)}, true},
		"longer action":   {TokenRequest{Audience: "h", Action: strings.Repeat("x", maxAction+1)}, false},
		"no host":         {TokenRequest{Action: "x"}, false},
		"no action":       {TokenRequest{Audience: "h"}, false},
		"host not UTF-8":  {TokenRequest{Audience: "\xff", Action: "x"}, false},
		"the longest all": {TokenRequest{Audience: strings.Repeat("h", maxAudience), Action: strings.Repeat("\x01", maxAction/6), Agent: &AgentClaim{m.Address(), 1}}, true},
	} {
		token, err := a.MintRequestToken(t.Context(), m, c.r)
		if (err == nil) != c.ok || !c.ok && !errors.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok {
			if _, err := ParseRequestToken(string(token.Expose())); err != nil {
				t.Errorf("%s does not parse: %v", name, err)
			}
		}
	}
}

func TestParseLengthLimit(t *testing.T) {
	t.Parallel()
	// Two and three characters are whole base64url values, so only the length
	// can refuse the longer token.
	var base string
	fill := 0
	for n := 1; fill%4 != 2; n++ {
		base = mint(t, newWorld(t).open(t), master(t, aliceHex), TokenRequest{Audience: "h", Action: strings.Repeat("x", n)})
		fill = maxRequestToken - len(base)
	}
	if _, err := ParseRequestToken(base + strings.Repeat("A", fill)); err != nil {
		t.Errorf("%d bytes: %v", maxRequestToken, err)
	}
	if _, err := ParseRequestToken(base + strings.Repeat("A", fill+1)); stepOf(err) != StepShape {
		t.Errorf("%d bytes: %v", maxRequestToken+1, err)
	}
}

func TestMintAsserts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.config()
	c.Hardware = fakeHardware{id: "key-1"}
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseRequestToken(mint(t, a, master(t, aliceHex), TokenRequest{Audience: "h", Action: "x"}))
	sum := sha256.Sum256(parsed.payload)
	if err != nil || string(parsed.assertion) != "assertion of "+string(sum[:]) {
		t.Errorf("assertion %q, %v", parsed.assertion, err)
	}
	// The same device, with its hardware out of reach, must not sign as a
	// software one.
	if _, err := w.open(t).MintRequestToken(t.Context(), master(t, aliceHex), TokenRequest{Audience: "h", Action: "x"}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v", err)
	}
	broken := errors.New("enclave is busy")
	c.Hardware = fakeHardware{id: "key-1", err: broken}
	if a, err = OpenAccount(c); err != nil {
		t.Fatal(err)
	}
	if _, err := a.MintRequestToken(t.Context(), master(t, aliceHex), TokenRequest{Audience: "h", Action: "x"}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestMintWithAKeyThatRefuses(t *testing.T) {
	t.Parallel()
	if _, err := newWorld(t).open(t).MintRequestToken(t.Context(), MasterKey{}, TokenRequest{Audience: "h", Action: "x"}); err == nil {
		t.Error("a token came from no key")
	}
}

func stepOf(err error) Step {
	var refused *TokenError
	if !errors.As(err, &refused) || !errors.Is(err, fault.RequestToken) {
		return invalidStep
	}
	return refused.Step
}

type tokenVector struct {
	Name, Token, Action, Expect string
	Now                         int64
}

func TestRequestTokenVectors(t *testing.T) {
	t.Parallel()
	var vectors []tokenVector
	readVectors(t, "request_tokens.json", &vectors)
	if want := tokenVectors(t); !reflect.DeepEqual(vectors, want) && !*update {
		t.Error("request_tokens.json is not what -update writes")
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			verifier := newVerifier(t, t.TempDir(), v.Now)
			claims, err := verifier.Verify(t.Context(), v.Token, v.Action)
			if v.Expect == "success" {
				if err != nil || claims.Action != v.Action {
					t.Errorf("got %v", err)
				}
				return
			}
			if got := stepOf(err).String(); got != v.Expect {
				t.Errorf("got %s (%v), want %s", got, err, v.Expect)
			}
			if public := fault.Of(err).Public(); public != fault.RequestToken.Text() {
				t.Errorf("the peer reads %q", public)
			}
			if !reflect.DeepEqual(claims, RequestClaims{}) {
				t.Error("claims of a refused token came out")
			}
			if _, err := os.Stat(verifier.c.Path); err == nil {
				t.Error("a refused token wrote to disk")
			}
		})
	}
}

// FuzzParseRequestToken: no panic; what parses prints to a token that parses
// to the same thing.
func FuzzParseRequestToken(f *testing.F) {
	var vectors []tokenVector
	readVectors(f, "request_tokens.json", &vectors)
	for _, v := range vectors {
		f.Add(v.Token)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := ParseRequestToken(s)
		if err != nil {
			if stepOf(err) == invalidStep {
				t.Fatalf("no step in %v", err)
			}
			return
		}
		again, err := ParseRequestToken(parsed.String())
		if err != nil || !reflect.DeepEqual(again, parsed) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func newVerifier(t testing.TB, dir string, now int64) *RequestVerifier {
	t.Helper()
	v, err := OpenRequestVerifier(verifierConfig(t, dir, now))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verifierConfig(t testing.TB, dir string, now int64) RequestVerifierConfig {
	t.Helper()
	m := master(t, aliceHex)
	return RequestVerifierConfig{Path: filepath.Join(dir, "request-devices.json"), Host: "host.local", Master: m.Address,
		Agent: theAgent(t, m), Assertions: assertions{}, Now: clockAt(now)}
}
