package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestParseHost: how a relay reads what Parse reads more kindly.
func TestParseHost(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", MaxID+1)
	for text, c := range map[string]struct {
		err error
		id  string
	}{
		`{"type":"response","id":"x","status":200,"headers":{}}`:                    {nil, "x"},
		`{"type":"response","id":"x","status":200,"headers":{"a":""},"body":""}`:    {nil, "x"},
		`{"type":"response","id":"x","status":200,"headers":{"a":null},"body":"b"}`: {ErrFrame, "x"},
		`{"type":"response","id":"x","status":200,"headers":{},"body":null}`:        {ErrFrame, "x"},
		`{"type":"response","id":"x","status":null,"headers":{}}`:                   {ErrFrame, "x"},
		`{"type":"response","id":"x","status":0,"headers":{}}`:                      {nil, "x"},
		`{"type":"response","id":"x","status":200.5,"headers":{}}`:                  {nil, "x"},
		`{"type":"response","id":"x","status":1e99,"headers":{},"body":"b"}`:        {nil, "x"},
		`{"type":"response","id":"x","status":1.5,"headers":{},"body":7}`:           {ErrFrame, "x"},
		`{"type":"stream_chunk","id":"x","data":""}`:                                {nil, "x"},
		`{"type":"stream_chunk","id":"x"}`:                                          {ErrFrame, "x"},
		`{"type":"stream_chunk","id":"x","data":null}`:                              {ErrFrame, "x"},
		`{"type":"stream_chunk","id":"x","data":"\ud800"}`:                          {nil, "x"},
		`{"type":"stream_chunk","id":"x","data":"a","data":"b"}`:                    {ErrFrame, "x"},
		`{"type":"stream_chunk","id":"` + long + `","data":"a"}`:                    {ErrFrame, ""},
		`{"type":"stream_chunk","id":"` + long + `","data":1}`:                      {ErrFrame, ""},
		`{"type":"stream_start","id":"x","status":200,"headers":[]}`:                {ErrFrame, "x"},
		`[]`: {ErrFrame, ""}, `null`: {ErrFrame, ""}, `7`: {ErrFrame, ""}, `{`: {ErrJSON, ""}, ``: {ErrJSON, ""}, "{\"id\":\"\xff\"}": {ErrJSON, ""},
	} {
		f, err := ParseHost([]byte(text))
		if !errors.Is(err, c.err) || f.ID != c.id {
			t.Errorf("%.80s: %q %v", text, f.ID, err)
		}
	}
	for _, status := range []string{"0", "200.5", "-0.0", "1e99"} {
		if f, err := ParseHost([]byte(`{"type":"stream_start","id":"x","status":` + status + `,"headers":{}}`)); err != nil || f.Status >= 200 && f.Status <= 599 {
			t.Errorf("status %s: %d %v", status, f.Status, err)
		}
	}
}

func TestWellFormed(t *testing.T) {
	t.Parallel()
	good := Frame{Type: Auth, Nonce: "n", Timestamp: 1, Agents: []Agent{{Address: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", Signature: devSignature}}}
	adding := Frame{Type: AddAgent, Nonce: "n", Timestamp: 1, Address: good.Agents[0].Address, Signature: devSignature}
	if !good.WellFormed() || !adding.WellFormedAddition() {
		t.Error("right ones are refused")
	}
	for name, f := range map[string]Frame{
		"no nonce": {Type: Auth, Timestamp: 1, Agents: good.Agents}, "no time": {Type: Auth, Nonce: "n", Agents: good.Agents}, "no agents": {Type: Auth, Nonce: "n", Timestamp: 1},
		"a wrong one": {Type: Auth, Nonce: "n", Timestamp: 1, Agents: []Agent{{Address: "0x", Signature: devSignature}}},
	} {
		if f.WellFormed() {
			t.Errorf("%s was taken", name)
		}
	}
	for name, f := range map[string]Frame{
		"no nonce": {Type: AddAgent, Timestamp: 1, Address: adding.Address, Signature: devSignature}, "a short signature": {Type: AddAgent, Nonce: "n", Timestamp: 1, Address: adding.Address, Signature: "0x"},
	} {
		if f.WellFormedAddition() {
			t.Errorf("%s was taken", name)
		}
	}
}

// FuzzParseHost: what a relay takes, a host's parser takes too.
func FuzzParseHost(f *testing.F) {
	for _, s := range []string{`{"type":"response","id":"x","status":1.5,"headers":{"a":""}}`, `{"type":"stream_chunk","id":"x","data":""}`, `{"id":"x","id":"y"}`, `{"type":"pong","ts":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := ParseHost(raw)
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
