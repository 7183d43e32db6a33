package wire

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"osaurus/engine/signature"
)

// The vector of the specification: the well-known development key.
const (
	devAddress   = "0xf39Fd6e51aad88F6F4ce6aB8827279cfffFb92266"
	devNonce     = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	devTime      = 1709136000
	devSignature = "0x58476a1d61f8a5feb4ab0540686d0676787925110ecd446faaa513d4c3fae475579f8db8cd339fd23b04b2557a8a6ea0cec4f169807c4eee43ba1063a376faed1c"
)

func TestVector(t *testing.T) {
	t.Parallel()
	addr := "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	if got := len(Text(addr, devNonce, devTime)); got != 133 {
		t.Errorf("the text has %d bytes", got)
	}
	a, ok := Verify(Agent{Address: addr, Signature: devSignature}, devNonce, devTime)
	if !ok || a.String() != addr {
		t.Errorf("%s %v", a, ok)
	}
	for name, bad := range map[string]struct {
		a     Agent
		nonce string
		at    int64
	}{
		"another case":  {Agent{Address: strings.ToLower(addr), Signature: devSignature}, devNonce, devTime},
		"another nonce": {Agent{Address: addr, Signature: devSignature}, strings.Replace(devNonce, "1e1f", "1e20", 1), devTime},
		"another time":  {Agent{Address: addr, Signature: devSignature}, devNonce, devTime + 1},
		"no 0x":         {Agent{Address: addr, Signature: devSignature[2:]}, devNonce, devTime},
		"too long":      {Agent{Address: devAddress, Signature: devSignature}, devNonce, devTime},
		"empty":         {Agent{}, devNonce, devTime},
	} {
		if _, ok := Verify(bad.a, bad.nonce, bad.at); ok {
			t.Errorf("%s was taken", name)
		}
	}
	sum := signature.EthereumMessage.Digest(Text(addr, devNonce, devTime))
	if sum.Domain() != signature.EthereumMessage {
		t.Error("another domain")
	}
	for v, digit := range map[string]string{"0": "01", "27": "1c"} {
		sig := devSignature[:len(devSignature)-2] + digit
		if _, ok := Verify(Agent{Address: addr, Signature: sig}, devNonce, devTime); !ok {
			t.Errorf("v from %s is not taken", v)
		}
	}
}

// TestRecorded: frames that other relays and hosts sent.
func TestRecorded(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Type{
		`{"type":"challenge","nonce":"4fa92a761bffd31ec21b37221c53217d1e531bd8b2f0c8ef17cca496ac9288a4"}`:                                                                                            Challenge,
		`{"agents":[{"address":"0x91FF57d3e11783E00177925544BAAFc3cd6fD941","signature":"0xeb3c"}],"nonce":"4fa9","timestamp":1795343379,"type":"auth"}`:                                             Auth,
		`{"type":"auth_ok","agents":[{"address":"0x91ff","url":"https://0x91ff.agent.osaurus.ai"}],"rejected":[{"address":"0xaedf","reason":"already_registered"}],"region":"local"}`:                AuthOK,
		`{"type":"request","id":"36957c43","method":"POST","path":"/v1/chat/completions?stream=true&x=a%20b","headers":{"authorization":"Bearer osk-v1.x.y"},"body":"{\"message\":\"h\u00e9llo\"}"}`: Request,
		`{"body":"{\"reply\":\"hi\"}","headers":{"Transfer-Encoding":"chunked"},"id":"36957c43","status":201,"type":"response"}`:                                                                     Response,
		`{"type":"response","id":"x","status":204,"headers":{}}`:            Response,
		`{"type":"ping","ts":1795343541}`:                                   Ping,
		`{"type":"pong"}`:                                                   Pong,
		`{"type":"agent_removed","address":"0xbdfb","reason":"superseded"}`: AgentRemoved,
		`{"type":"error","error":"relay_restarting"}`:                       Error,
		`{"type":"something_new","what":{"ever":[1]}}`:                      "something_new",
	} {
		f, err := Parse([]byte(text))
		if err != nil || f.Type != want {
			t.Errorf("%s: %+v %v", text, f, err)
			continue
		}
		raw, err := f.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(raw)
		if err != nil || !reflect.DeepEqual(again, f) {
			t.Errorf("%s became %s: %v", text, raw, err)
		}
	}
}

// TestLimits: each on both sides.
func TestLimits(t *testing.T) {
	t.Parallel()
	text := func(n int) string { return strings.Repeat("a", n) }
	headers := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"h%d":""`, i))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	for name, c := range map[string]struct {
		most  int
		frame func(n int) string
	}{
		"id":    {MaxID, func(n int) string { return `{"type":"stream_end","id":"` + text(n) + `"}` }},
		"nonce": {MaxNonce, func(n int) string { return `{"type":"challenge","nonce":"` + text(n) + `"}` }},
		"headers": {MaxHeaders, func(n int) string {
			return `{"type":"stream_start","id":"x","status":200,"headers":` + headers(n) + `}`
		}},
		"name": {MaxName, func(n int) string {
			return `{"type":"stream_start","id":"x","status":200,"headers":{"` + text(n) + `":""}}`
		}},
		"value": {MaxValue, func(n int) string {
			return `{"type":"stream_start","id":"x","status":200,"headers":{"a":"` + text(n) + `"}}`
		}},
		"body": {MaxBody, func(n int) string {
			return `{"type":"response","id":"x","status":200,"headers":{},"body":"` + text(n) + `"}`
		}},
		"chunk": {MaxChunk, func(n int) string { return `{"type":"stream_chunk","id":"x","data":"` + text(n) + `"}` }},
		"chunk, in pairs": {MaxChunk, func(n int) string {
			return `{"type":"stream_chunk","id":"x","data":"` + strings.Repeat("😀", n/2) + text(n%2) + `"}`
		}},
	} {
		if _, err := Parse([]byte(c.frame(c.most))); err != nil {
			t.Errorf("%s at its limit: %v", name, err)
		}
		if _, err := Parse([]byte(c.frame(c.most + 1))); !errors.Is(err, ErrFrame) {
			t.Errorf("%s beyond its limit: %v", name, err)
		}
	}
}

// TestBroken: what is no frame, and whose request it was about.
func TestBroken(t *testing.T) {
	t.Parallel()
	for text, id := range map[string]string{
		`{"type":"response","id":"x","status":200,"headers":null}`: "x",
		`{"type":"response","id":"x","status":"200","headers":{}}`: "x",
		`{"type":"response","id":"x","headers":{}}`:                "x",
		`{"type":"response","id":"x","status":1.5,"headers":{}}`:   "x",
		`{"type":"stream_chunk","id":"x","data":1}`:                "x",
		`{"type":"response","id":7,"status":200,"headers":{}}`:     "",
		`{"type":"response","status":200,"headers":{}}`:            "",
		`{"id":"x"}`: "x", `{}`: "",
	} {
		if f, err := Parse([]byte(text)); !errors.Is(err, ErrFrame) || f.ID != id {
			t.Errorf("%s: %q %v", text, f.ID, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "1", "{", `{"type":"ping"} x`, "{\"type\":\"ping\xff\"}", `{"type":"ping","type":"pong"}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestInvalidTextIsReplaced: a host's bytes become text as the relay would
// make them.
func TestInvalidTextIsReplaced(t *testing.T) {
	t.Parallel()
	f := Frame{Type: StreamChunk, ID: "x", Data: "a\xffb"}
	raw, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Data string }
	if err := json.Unmarshal(raw, &out); err != nil || out.Data != "a\uFFFDb" || Length(f.Data) != 3 {
		t.Errorf("%s %v", raw, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"type":"ping","ts":1}`, `{"type":"response","id":"x","status":200,"headers":{},"body":"b"}`, `{"type":"auth","agents":[{"address":"0x","signature":"0x"}],"nonce":"n","timestamp":1}`} {
		f.Add([]byte(s))
	}
	f.Add([]byte(hex.EncodeToString([]byte("x"))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := Parse(raw)
		if err != nil {
			return
		}
		again, err := frame.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Parse(again); err != nil || !reflect.DeepEqual(frame, second) {
			t.Errorf("%s became %s: %v", raw, again, err)
		}
	})
}
