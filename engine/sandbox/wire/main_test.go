package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var nonce = strings.Repeat("0a", NonceSize)

func TestPreface(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]Preface{
		"OSG1 osr-1 2000 17": {Kind: Bridge, Sandbox: "osr-1", UID: 2000, PID: 17}, "OSG1 osr-1 0 0": {Kind: Bridge, Sandbox: "osr-1"}, "OSG1 osr-1 4294967295 2147483647": {Kind: Bridge, Sandbox: "osr-1", UID: 1<<32 - 1, PID: 1<<31 - 1},
		"OSP1 osr-1": {Kind: Proxy, Sandbox: "osr-1"}, "OSC1 " + nonce: {Kind: Control, Nonce: nonce},
	} {
		if got, err := ParsePreface(line); err != nil || got != want || got.String() != line+"\n" {
			t.Errorf("%q: %+v %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "OSG1", "OSG1 osr-1 1", "OSG1 osr-1 1 2 3", " OSG1 osr-1 1 2", "OSG1 osr-1 1 2\r", "OSG1 osr-1 +1 2", "OSG1 osr-1 01 2", "OSG1 osr-1 1 -2", "OSG1 osr-1 4294967296 1", "OSG1 osr-1 1 2147483648", "OSG1 OSR 1 2", "OSG1 o/r 1 2",
		"osg1 osr-1 1 2", "OSG1 osr-1 １ 2", "OSP1", "OSP1 ", "OSC1 " + strings.ToUpper(nonce), "OSC1 " + nonce[2:], "OSC1 " + nonce + "00", "OSP1 " + strings.Repeat("a", MaxSandbox+1),
	} {
		if got, err := ParsePreface(line); !errors.Is(err, ErrPreface) {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func FuzzParsePreface(f *testing.F) {
	for _, s := range []string{"OSG1 osr-1 2000 17", "OSP1 osr-1", "OSC1 " + nonce, "OSG1 osr-1 007 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if p, err := ParsePreface(line); err == nil && (p.String() != line+"\n" || len(line) >= MaxPreface) {
			t.Errorf("%q came back as %q", line, p)
		}
	})
}

// TestReadPreface: nothing beyond the line is read, its length and its time
// are bounded.
func TestReadPreface(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() { _, _ = io.WriteString(a, "OSP1 osr-1\nrest"); a.Close() }()
		p, err := ReadPreface(b)
		rest, _ := io.ReadAll(b)
		if err != nil || p.Kind != Proxy || string(rest) != "rest" {
			t.Error(p, err, string(rest))
		}
		a, b = net.Pipe()
		go func() { _, _ = io.WriteString(a, strings.Repeat("x", MaxPreface)) }()
		if _, err := ReadPreface(b); !errors.Is(err, ErrPreface) {
			t.Error(err)
		}
		a.Close()
		a, b = net.Pipe()
		begin := time.Now()
		if _, err := ReadPreface(b); err == nil || time.Since(begin) != PrefaceTimeout {
			t.Error(err, time.Since(begin))
		}
		a.Close()
	})
}

func TestBoot(t *testing.T) {
	t.Parallel()
	b := Boot{Sandbox: "osr-1", Nonce: nonce, Transport: "unix:/host/s", Proxy: true, Init: true}
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseBoot(raw); err != nil || back != b {
		t.Error(back, err)
	}
	for _, bad := range []Boot{{}, {Sandbox: "o", Nonce: nonce}, {Sandbox: "O", Nonce: nonce, Transport: "unix:/x"}, {Sandbox: "o", Nonce: "00", Transport: "unix:/x"}, {Sandbox: "o", Nonce: nonce, Transport: "tcp:x"}, {Sandbox: "o", Nonce: nonce, Transport: "unix:"}} {
		if _, err := bad.Encode(); !errors.Is(err, ErrBoot) {
			t.Errorf("%+v was written", bad)
		}
	}
	if _, err := ParseBoot(append(raw, strings.Repeat(" ", MaxBoot)...)); !errors.Is(err, ErrBoot) {
		t.Error("too long")
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`{"id":1,"op":"user-add","user":"agent-x","uid":2000}`, `{"id":1,"op":"user-add","user":"agent-x","uid":59999}`, `{"id":1,"op":"user-del","user":"agent-x"}`, `{"id":1,"op":"token-put","user":"agent-x","token":"QQ=="}`,
		`{"id":1,"op":"token-del","user":"agent-x"}`, `{"id":1,"op":"exec","argv":["id"],"env":["A=b"],"dir":"/"}`, `{"id":1,"op":"kill","target":3,"signal":15}`, `{"id":1,"op":"put","path":"/a/b","mode":420,"data":"QQ=="}`,
		`{"id":1,"op":"get","user":"agent-x","path":"/a"}`, `{"id":1,"op":"sync"}`, `{"id":18446744073709551615,"op":"shutdown"}`,
	} {
		if _, err := ParseRequest([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{
		"", "{}", `{"id":0,"op":"sync"}`, `{"id":-1,"op":"sync"}`, `{"id":1,"op":"format"}`, `{"id":1,"op":"sync","x":1}`, `{"id":1,"id":2,"op":"sync"}`, `{"id":1,"op":"sync"}{}`,
		`{"id":1,"op":"user-add","user":"agent-x","uid":1999}`, `{"id":1,"op":"user-add","user":"agent-x","uid":60000}`, `{"id":1,"op":"user-add","user":"root","uid":2000}`, `{"id":1,"op":"user-add","user":"agent-","uid":2000}`,
		`{"id":1,"op":"user-add","user":"agent-a:b","uid":2000}`, `{"id":1,"op":"user-add","user":"agent-a\nroot","uid":2000}`, `{"id":1,"op":"user-add","user":"agent-../x","uid":2000}`, `{"id":1,"op":"user-add","user":"agent-` + strings.Repeat("x", 59) + `","uid":2000}`,
		`{"id":1,"op":"token-put","user":"agent-x"}`, `{"id":1,"op":"exec"}`, `{"id":1,"op":"exec","argv":["a\u0000b"]}`, `{"id":1,"op":"exec","argv":["a"],"env":["A"]}`, `{"id":1,"op":"exec","argv":["a"],"env":["=x"]}`, `{"id":1,"op":"exec","user":"root","argv":["a"]}`,
		`{"id":1,"op":"kill","target":0,"signal":9}`, `{"id":1,"op":"kill","target":1,"signal":64}`, `{"id":1,"op":"put","path":"a","mode":420}`, `{"id":1,"op":"put","path":"/a/../b","mode":420}`, `{"id":1,"op":"put","path":"/a//b"}`, `{"id":1,"op":"put","path":"/a/","mode":420}`, `{"id":1,"op":"put","path":"/a","mode":2048}`,
	} {
		if r, err := ParseRequest([]byte(line)); !errors.Is(err, ErrControl) {
			t.Errorf("%s: %+v %v", line, r, err)
		}
	}
	many := make([]string, MaxArgs+1)
	for i, n := range []int{MaxArgs, MaxArgs + 1} {
		raw, err := json.Marshal(Request{ID: 1, Op: Exec, Argv: many[:n]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(raw); (err == nil) != (i == 0) {
			t.Errorf("%d arguments: %v", n, err)
		}
	}
	for i, n := range []int{MaxChunk, MaxChunk + 1} {
		raw, err := json.Marshal(Reply{ID: 1, Data: make([]byte, n)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseReply(raw); (err == nil) != (i == 0) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestReadLine(t *testing.T) {
	t.Parallel()
	r := NewLineReader(strings.NewReader("a\n" + strings.Repeat("x", MaxLine) + "\n" + strings.Repeat("y", MaxLine+1) + "\n"))
	for i, want := range []int{1, MaxLine} {
		if line, err := ReadLine(r); err != nil || len(line) != want {
			t.Errorf("line %d: %d bytes, %v", i, len(line), err)
		}
	}
	if _, err := ReadLine(r); !errors.Is(err, ErrControl) {
		t.Error(err)
	}
	if _, err := ReadLine(bufio.NewReader(strings.NewReader("torn"))); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"user-add","user":"agent-x","uid":2000}`))
	f.Add([]byte(`{"id":1,"op":"put","path":"/a/b","mode":420,"data":"QQ==","more":true}`))
	f.Add([]byte(`{"id":1,"op":"exec","argv":["id"],"env":["A=b"]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRequest(line)
		if err != nil {
			return
		}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(raw); err != nil && len(raw) <= MaxLine {
			t.Errorf("%s does not come back: %v", raw, err)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"id":1,"ok":true,"stream":1,"data":"QQ==","more":true}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := ParseReply(line); err == nil && (r.ID == 0 || len(r.Data) > MaxChunk) {
			t.Errorf("%+v", r)
		}
	})
}

func TestShared(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{"osr-shared00-00000001": true, "osr-11111111-00000001": false, "osr-shared0-000000001": false, "": false} {
		if (Boot{Sandbox: id}).Shared() != want {
			t.Errorf("%q", id)
		}
	}
}
