package channel

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The fast parsers may only ever agree with the tolerant ones: whatever one
// accepts the other reads the same.

func seedFrames(f *testing.F) {
	for _, v := range vectors[struct{ Frames []string }](f, "replies") {
		for _, x := range v.Frames {
			f.Add([]byte(x))
		}
	}
}

func FuzzFrame(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseFrame(data, nil)
		slow, slowErr := parseFrameAnyOrder(data, nil)
		if err != slowErr || !equalFrames(got, slow) { //nolint:errorlint // the very same
			t.Fatalf("fast %+v %v, tolerant %+v %v", got, err, slow, slowErr)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := parseFrame(appendFrame(nil, got), nil)
		if err != nil || !equalFrames(again, got) {
			t.Fatalf("%+v does not round-trip: %+v %v", got, again, err)
		}
	})
}

func equalFrames(a, b frame) bool {
	return a.seq == b.seq && a.fin == b.fin && bytes.Equal(a.ct, b.ct)
}

func FuzzEnvelope(f *testing.F) {
	for _, v := range vectors[struct {
		Calls []struct{ Envelope string }
	}](f, "calls") {
		for _, c := range v.Calls {
			f.Add([]byte(c.Envelope))
		}
	}
	f.Add(appendEnvelope(nil, envelope{ct: []byte("0123456789abcdef"), seq: 9, sid: []byte("8OHSw7Sllod4aVpLPC0eDw")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseEnvelope(data, nil)
		slow, slowErr := parseEnvelopeAnyOrder(data, nil)
		equal := got.seq == slow.seq && bytes.Equal(got.sid, slow.sid) && bytes.Equal(got.ct, slow.ct)
		if err != slowErr || !equal { //nolint:errorlint // the very same
			t.Fatalf("fast %+v %v, tolerant %+v %v", got, err, slow, slowErr)
		}
		if err != nil || bytes.ContainsFunc(got.sid, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r > '~' }) {
			return // no sid of ours has such characters
		}
		again, err := parseEnvelope(appendEnvelope(nil, got), nil)
		if err != nil || again.seq != got.seq || !bytes.Equal(again.sid, got.sid) || !bytes.Equal(again.ct, got.ct) {
			t.Fatalf("%+v does not round-trip: %+v %v", got, again, err)
		}
	})
}

func FuzzInnerRequest(f *testing.F) {
	for _, v := range vectors[struct{ Plaintext string }](f, "inner_requests") {
		f.Add([]byte(v.Plaintext))
	}
	f.Add([]byte("{\"method\":\"GET\",\"path\":\"/\xff\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		slow, err := parseInnerRequestAnyOrder(data, nil)
		if fast, ok := parseInnerRequestFixed(data, nil); ok && (err != nil || !equalRequests(fast, slow)) {
			t.Fatalf("fast %+v, tolerant %+v %v", fast, slow, err)
		}
		if err != nil {
			return
		}
		text, err := appendInnerRequest(nil, slow)
		if err != nil || !json.Valid(text) {
			t.Fatalf("%+v is written as %q, %v", slow, text, err)
		}
		again, err := parseInnerRequest(text, nil)
		if err != nil || !equalRequests(again, slow) {
			t.Fatalf("%+v does not round-trip: %+v %v", slow, again, err)
		}
		// Whatever it holds, building the request neither panics nor lets it
		// name the channel.
		if req, err := slow.request(outerRequest(t)); err == nil && reachesChannel(req.RequestURI) {
			t.Fatal("reached the channel from inside")
		}
	})
}

func equalRequests(a, b *innerRequest) bool {
	x, y := *a, *b
	x.body, y.body, x.headers, y.headers = nil, nil, nil, nil
	return reflect.DeepEqual(x, y) && bytes.Equal(a.body, b.body) && len(a.headers) == len(b.headers) &&
		(len(a.headers) == 0 || reflect.DeepEqual(a.headers, b.headers))
}

func FuzzInnerReply(f *testing.F) {
	for _, v := range vectors[struct{ Plaintext string }](f, "inner_replies") {
		f.Add([]byte(v.Plaintext))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		slow, err := parseInnerReplyAnyOrder(data, nil)
		fast, ok := parseInnerReplyFixed(data, nil)
		if ok && (err != nil || !equalReplies(fast, slow)) {
			t.Fatalf("fast %+v, tolerant %+v %v", fast, slow, err)
		}
		got, err := parseInnerReply(data, nil)
		if err != nil {
			return
		}
		text, err := appendInnerReply(nil, got)
		if err != nil || !json.Valid(text) {
			t.Fatalf("%+v is written as %q, %v", got, text, err)
		}
		if again, err := parseInnerReply(text, nil); err != nil || !equalReplies(again, got) {
			t.Fatalf("%+v does not round-trip: %+v %v", got, again, err)
		}
	})
}

func equalReplies(a, b innerReply) bool {
	return a.status == b.status && a.contentType == b.contentType && bytes.Equal(a.body, b.body)
}

func FuzzHello(f *testing.F) {
	for _, v := range vectors[struct{ Hello string }](f, "hello") {
		f.Add([]byte(v.Hello))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		slow, slowOK := parseHelloAnyOrder(data)
		if fast, ok := parseHelloFixed(data); ok && (!slowOK || fast != slow) {
			t.Fatalf("fast %+v, tolerant %+v %v", fast, slow, slowOK)
		}
		h, err := parseHello(data)
		if err != nil {
			if got := outcome(err); got != "invalid_request" && got != "unsupported_version" && got != "malformed" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again, err := parseHello(h.append(nil)); err != nil || again != h {
			t.Fatalf("%+v does not round-trip: %+v %v", h, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, v := range vectors[struct{ Answer string }](f, "handshake") {
		f.Add([]byte(v.Answer))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		slow, slowOK := parseAnswerAnyOrder(data)
		if fast, ok := parseAnswerFixed(data); ok && (!slowOK || fast != slow) {
			t.Fatalf("fast %+v, tolerant %+v %v", fast, slow, slowOK)
		}
		a, err := parseAnswer(data)
		if err != nil {
			return
		}
		if again, err := parseAnswer(a.append(nil)); err != nil || again != a {
			t.Fatalf("%+v does not round-trip: %+v %v", a, again, err)
		}
	})
}

// TestWrittenForms pins the bytes: sorted keys, no white space, fin only when
// true, empty members left out.
func TestWrittenForms(t *testing.T) {
	t.Parallel()
	request, err := appendInnerRequest(nil, &innerRequest{
		method: "POST", path: "/a?b=<c>&d", authorization: "Bearer x", accept: "*/*", contentType: "a/b",
		headers: []header{{"A", "1"}, {"B", "\"\\ü/"}}, body: []byte{0xfb, 0xff},
	})
	if err != nil {
		t.Fatal(err)
	}
	least, err := appendInnerRequest(nil, &innerRequest{method: "GET", path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := appendInnerReply(nil, innerReply{status: 200, contentType: "a/b", body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := appendInnerReply(nil, innerReply{status: 204})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ got, want string }{
		{string(appendFrame(nil, frame{ct: []byte{1, 2, 3}, seq: 7})), `{"ct":"AQID","seq":7}`},
		{string(appendFrame(nil, frame{ct: []byte{1}, fin: true})), `{"ct":"AQ","fin":true,"seq":0}`},
		{string(appendEnvelope(nil, envelope{ct: []byte{1}, seq: 1<<64 - 1, sid: []byte("AA")})), `{"ct":"AQ","seq":18446744073709551615,"sid":"AA","v":1}`},
		{string(request), `{"accept":"*/*","authorization":"Bearer x","body":"-_8","contentType":"a/b","headers":{"A":"1","B":"\"\\ü/"},"method":"POST","path":"/a?b=<c>&d"}`},
		{string(least), `{"method":"GET","path":"/"}`},
		{string(reply), `{"body":"e30","contentType":"a/b","status":200}`},
		{string(empty), `{"status":204}`},
	} {
		if x.got != x.want {
			t.Errorf("got  %s\nwant %s", x.got, x.want)
		}
	}
}

// TestFastPathIsTaken keeps the writers and the fast readers in step: what we
// write, the fast reader must read, headers included.
func TestFastPathIsTaken(t *testing.T) {
	t.Parallel()
	in := &innerRequest{method: "POST", path: "/agents/x/run", authorization: "Bearer y", body: []byte("{}"), headers: []header{{"Idempotency-Key", "z"}, {"X-A", "b"}}}
	text, err := appendInnerRequest(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := parseInnerRequestFixed(text, nil); !ok || !equalRequests(got, in) {
		t.Errorf("request: %+v %v", got, ok)
	}
	reply, err := appendInnerReply(nil, innerReply{status: 418, contentType: "text/plain", body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := parseInnerReplyFixed(reply, nil); !ok || got.status != 418 {
		t.Errorf("reply: %+v %v", got, ok)
	}
}

func TestManyHeadersFallBack(t *testing.T) {
	t.Parallel()
	in := &innerRequest{method: "GET", path: "/"}
	for i := range 100 {
		in.headers = append(in.headers, header{"X-" + strings.Repeat("a", i), "v"})
	}
	text, err := appendInnerRequest(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseInnerRequest(text, nil); err != nil || !equalRequests(got, in) {
		t.Errorf("got %d headers, %v", len(got.headers), err)
	}
}

func TestTextsThatAreNotUTF8AreNotWritten(t *testing.T) {
	t.Parallel()
	for _, in := range []*innerRequest{
		{method: "\xff"}, {path: "\xff"}, {accept: "\xff"}, {authorization: "\xff"}, {contentType: "\xff"},
		{headers: []header{{"\xff", ""}}}, {headers: []header{{"a", "\xff"}}},
	} {
		if _, err := appendInnerRequest(nil, in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", in, err)
		}
	}
	if _, err := appendInnerReply(nil, innerReply{status: 200, contentType: "\xff"}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}
