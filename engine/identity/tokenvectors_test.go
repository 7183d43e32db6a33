package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/signature"
)

var update = flag.Bool("update", false, "write the vectors that signing here gives")

// The agent that the verifier knows: alice's, at this path.
var agentPath = Path{Index: 7, Scope: "a1b2c3d4"}

func theAgent(t testing.TB, m MasterKey) func(address.Address) (uint32, bool) {
	t.Helper()
	known := addressAt(m, agentPath)
	return func(a address.Address) (uint32, bool) { return agentPath.Index, a == known }
}

func clockAt(unix int64) func() time.Time { return func() time.Time { return time.Unix(unix, 0) } }

// assertions accepts exactly the assertion fakeHardware makes.
type assertions struct{}

func (assertions) Verify(_ context.Context, device string, hash [sha256.Size]byte, assertion []byte) error {
	if device == "" || string(assertion) != "assertion of "+string(hash[:]) {
		return errors.New("not an assertion of this payload")
	}
	return nil
}

// forge signs any payload with any key and joins the parts.
func forge(t testing.TB, signer Signer, header, payload string, assertion []byte) string {
	t.Helper()
	sig, err := signer.Sign(t.Context(), signature.SignedMessage.Digest([]byte(payload)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{base64url.Encode([]byte(header)), base64url.Encode([]byte(payload)), sig.Hex(), base64url.Encode(assertion)}, ".")
}

// tokenVectors builds every token of request_tokens.json.
func tokenVectors(t testing.TB) []tokenVector {
	t.Helper()
	const (
		now    = 1_800_000_000
		action = "GET /v1/models"
		good   = `{"act":"GET /v1/models","aud":"host.local","cnt":9,"dev":"a1b2c3d4","exp":1800000060,"iat":1800000000,"iss":"` + aliceAddress + `"}`
	)
	alice, bob := master(t, aliceHex), master(t, bobHex)
	agent, err := alice.Agent(agentPath)
	if err != nil {
		t.Fatal(err)
	}
	other, err := alice.Agent(Path{})
	if err != nil {
		t.Fatal(err)
	}
	ofAgent := strings.NewReplacer(`"iss":"`+aliceAddress+`"`, `"idx":7,"iss":"`+agent.Address().String()+`","par":"`+aliceAddress+`"`).Replace(good)
	with := func(payload string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(payload) }
	valid := forge(t, alice, requestHeader, good, nil)
	parts := strings.Split(valid, ".")
	join := func(i int, part string) string {
		p := append([]string{}, parts...)
		p[i] = part
		return strings.Join(p, ".")
	}
	sum := sha256.Sum256([]byte(good))
	var all []tokenVector
	add := func(name, expect, token string) {
		all = append(all, tokenVector{Name: name, Token: token, Action: action, Expect: expect, Now: now})
	}
	signed := func(name, expect, payload string) { add(name, expect, forge(t, alice, requestHeader, payload, nil)) }
	byAgent := func(name, expect, payload string) { add(name, expect, forge(t, agent, requestHeader, payload, nil)) }
	at := func(name, expect string, offset int64) {
		all = append(all, tokenVector{Name: name, Token: valid, Action: action, Expect: expect, Now: now + offset})
	}

	add("the master", "success", valid)
	add("an agent", "success", forge(t, agent, requestHeader, ofAgent, nil))
	add("with an assertion", "success", forge(t, alice, requestHeader, good, append([]byte("assertion of "), sum[:]...)))
	add("padded parts", "success", join(1, parts[1]+strings.Repeat("=", (4-len(parts[1])%4)%4)))
	add("signature with 0x", "success", join(2, "0x"+parts[2]))
	add("signature in upper case", "success", join(2, strings.ToUpper(parts[2])))
	signed("unknown fields", "success", with(good, `{"act"`, `{"a":[1,{"b":null}],"act"`))
	signed("another order and white space", "success", ` {"iss":"`+aliceAddress+"\",\n\"iat\":1800000000,\"exp\":1800000060,\"dev\":\"a1b2c3d4\",\"cnt\":9,\"aud\":\"host.local\",\"act\":\"GET /v1/models\"}\n")
	signed("lower-case issuer", "success", with(good, aliceAddress, strings.ToLower(aliceAddress)))
	signed("the highest counter", "success", with(good, `"cnt":9`, `"cnt":18446744073709551615`))

	add("nothing", "shape", "")
	add("three parts", "shape", strings.Join(parts[:3], "."))
	add("five parts", "shape", valid+".")
	add("header not base64url", "shape", join(0, parts[0]+"!"))
	add("payload not base64url", "shape", join(1, "+"+parts[1]))
	add("payload with a line feed", "shape", join(1, parts[1]+"\n"))
	add("short signature", "shape", join(2, parts[2][:128]))
	add("signature not hex", "shape", join(2, "zz"+parts[2][2:]))
	add("assertion not base64url", "shape", join(3, "a"))
	add("version 4", "header", forge(t, alice, strings.Replace(requestHeader, "5", "4", 1), good, nil))
	add("another algorithm", "header", forge(t, alice, strings.Replace(requestHeader, "es256k+apple-attest", "none", 1), good, nil))
	add("the same header with a space", "header", forge(t, alice, requestHeader+" ", good, nil))
	add("an empty header", "header", forge(t, alice, "", good, nil))
	signed("payload not JSON", "payload", "x")
	signed("payload an array", "payload", "["+good+"]")
	signed("a duplicate key", "payload", with(good, `{"act"`, `{"act":"GET /","act"`))
	signed("two values", "payload", good+"{}")
	for _, field := range []string{"act", "aud", "cnt", "dev", "exp", "iat", "iss"} {
		signed("without "+field, "payload", with(good, `"`+field+`"`, `"x-`+field+`"`))
	}
	signed("a negative counter", "payload", with(good, `"cnt":9`, `"cnt":-1`))
	signed("a counter beyond 64 bits", "payload", with(good, `"cnt":9`, `"cnt":18446744073709551616`))
	signed("a counter with a fraction", "payload", with(good, `"cnt":9`, `"cnt":9.0`))
	signed("a counter as text", "payload", with(good, `"cnt":9`, `"cnt":"9"`))
	signed("an upper-case device", "payload", with(good, "a1b2c3d4", "A1B2C3D4"))
	signed("a short device", "payload", with(good, "a1b2c3d4", "a1b2c3"))
	signed("an issuer that is no address", "payload", with(good, aliceAddress, "alice"))
	signed("an empty audience", "payload", with(good, "host.local", ""))
	signed("idx without par", "payload", with(good, `"iss"`, `"idx":7,"iss"`))
	signed("par without idx", "payload", with(good, `"iss"`, `"par":"`+aliceAddress+`","iss"`))
	byAgent("an index beyond 32 bits", "payload", with(ofAgent, `"idx":7`, `"idx":4294967296`))
	byAgent("par is no address", "payload", with(ofAgent, `"par":"`+aliceAddress, `"par":"`+aliceAddress[:40]))
	add("signed by another", "signature", forge(t, bob, requestHeader, good, nil))
	add("one payload bit flipped", "signature", join(1, base64url.Encode([]byte(with(good, `"cnt":9`, `"cnt":8`)))))
	add("v of 2", "signature", join(2, parts[2][:128]+"02"))
	add("high s", "signature", join(2, highS(t, parts[2])))
	add("a foreign master", "issuer", forge(t, bob, requestHeader, with(good, aliceAddress, bobAddress), nil))
	signed("the master posing as an agent", "issuer", with(good, `"iss"`, `"idx":7,"par":"`+aliceAddress+`","iss"`))
	add("an agent without par", "issuer", forge(t, agent, requestHeader, with(good, aliceAddress, agent.Address().String()), nil))
	byAgent("an agent of another master", "issuer", with(ofAgent, `"par":"`+aliceAddress, `"par":"`+bobAddress))
	byAgent("an agent with another index", "issuer", with(ofAgent, `"idx":7`, `"idx":8`))
	add("an address no agent has now", "issuer", forge(t, other, requestHeader, with(ofAgent, agent.Address().String(), other.Address().String()), nil))
	signed("exp one second late", "time", with(good, "1800000060", "1800000061"))
	signed("exp one second early", "time", with(good, "1800000060", "1800000059"))
	signed("times that overflow", "time", with(good, "1800000060", "-9223372036854775749", "1800000000", "9223372036854775807"))
	signed("another audience", "audience", with(good, "host.local", "other.local"))
	signed("the audience in upper case", "audience", with(good, "host.local", "HOST.LOCAL"))
	signed("another action", "action", with(good, "GET", "POST"))
	add("an assertion of another payload", "assertion", valid+base64url.Encode([]byte("assertion of nothing")))
	at("60 seconds old", "success", 60)
	at("61 seconds old", "time", 61)
	at("60 seconds ahead", "success", -60)
	at("61 seconds ahead", "time", -61)
	return all
}

// highS replaces s by n-s and flips v: the same signature to a verifier that
// does not look.
func highS(t testing.TB, sig string) string {
	t.Helper()
	order := unhex(t, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	raw := unhex(t, sig)
	borrow := 0
	for i := 31; i >= 0; i-- {
		d := int(order[i]) - int(raw[32+i]) - borrow
		borrow = 0
		if d < 0 {
			d, borrow = d+256, 1
		}
		raw[32+i] = byte(d)
	}
	raw[64] = 27 + 28 - raw[64]
	return signature.Signature(raw).Hex()
}

// TestVectorsAreOurs: signing here gives the vectors that lie beside the code.
func TestVectorsAreOurs(t *testing.T) {
	var raw strings.Builder
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	type ordered struct {
		Action string `json:"action"`
		Expect string `json:"expect"`
		Name   string `json:"name"`
		Now    int64  `json:"now"`
		Token  string `json:"token"`
	}
	var out []ordered
	for _, v := range tokenVectors(t) {
		out = append(out, ordered{v.Action, v.Expect, v.Name, v.Now, v.Token})
	}
	if err := enc.Encode(out); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "vectors", "request_tokens.json")
	if *update {
		if err := os.WriteFile(path, []byte(raw.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if stored, err := os.ReadFile(path); err != nil || string(stored) != raw.String() {
		t.Errorf("%s is not what signing gives, %v; see -update", path, err)
	}
}
