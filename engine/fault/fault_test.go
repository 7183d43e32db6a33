package fault

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/replies.txt anew")

// public returns the codes that cross the wire as themselves.
func public() []Code {
	var list []Code
	for c := invalidCode + 1; c < codeCount; c++ {
		if c.Shape() != Local {
			list = append(list, c)
		}
	}
	return list
}

// TestReplies holds each outcome's bytes to a file that was checked by hand:
// peers decide by them, so a change is a change of the protocol.
func TestReplies(t *testing.T) {
	t.Parallel()
	var now strings.Builder
	for _, c := range public() {
		r := ReplyTo(c)
		fmt.Fprintf(&now, "%d %s\n%s\n", r.Status, r.ContentType, r.Body)
		if s := c.Shape(); s == E2 || s == E6 {
			fmt.Fprintf(&now, "%s", Event(c))
		}
		now.WriteString("\n")
	}
	const file = "testdata/replies.txt"
	if *update {
		if err := os.WriteFile(file, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != now.String() {
		t.Errorf("the replies are not those of %s:\n%s", file, now.String())
	}
}

func TestEveryCodeHasARow(t *testing.T) {
	t.Parallel()
	for c := invalidCode + 1; c < codeCount; c++ {
		shape := c.Shape()
		switch {
		case c.Text() == "" || http.StatusText(c.Status()) == "" || shape == invalidShape || shape > Local:
			t.Errorf("code %d: %+v", c, c.row())
		case (shape == E2 || shape == E3) != (c.Name() != "") && shape != Local && shape != E6:
			t.Errorf("code %d: shape E%d with the name %q", c, shape, c.Name())
		case (shape == E1 || shape == E2 || shape == E6) != (c.Type() != "") && shape != Local:
			t.Errorf("code %d: shape E%d with the type %q", c, shape, c.Type())
		case c.Error() != c.Text():
			t.Errorf("code %d says %q", c, c.Error())
		}
	}
	for _, c := range []Code{invalidCode, codeCount, codeCount + 1} {
		if c.Status() != http.StatusInternalServerError || c.Shape() != Local {
			t.Errorf("unknown code %d: %+v", c, c.row())
		}
	}
}

var errSecret = errors.New("disk at /home/someone: password hunter2")

// TestCausesStayHere: what happened inside is for the log alone.
func TestCausesStayHere(t *testing.T) {
	t.Parallel()
	for c := invalidCode; c <= codeCount; c++ {
		for _, err := range []error{New(c, errSecret), fmt.Errorf("outer: %w", New(c, errSecret)), errors.Join(errSecret, c)} {
			r := ReplyTo(err)
			if all := string(r.Body) + r.ContentType + r.RetryAfter + string(Event(err)); strings.Contains(all, "hunter2") || strings.Contains(all, "outer") {
				t.Errorf("code %d sends %s", c, all)
			}
			if !strings.Contains(err.Error(), "hunter2") {
				t.Errorf("code %d: the log loses the cause", c)
			}
		}
	}
	if r := ReplyTo(errSecret); strings.Contains(string(r.Body), "hunter2") {
		t.Errorf("an unknown error sends %s", r.Body)
	}
}

var hexID = regexp.MustCompile(`^[0-9a-f]{8}$`)

func TestUnknownErrorsShowAnID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, err := range []error{errSecret, io.EOF, Internal, KeystoreLocked, New(NoMaster, nil)} {
		r := ReplyTo(err)
		var body struct {
			Error struct{ Message, Type string }
		}
		if json.Unmarshal(r.Body, &body) != nil || !hexID.MatchString(r.ID) || body.Error.Message != "Internal error "+r.ID || body.Error.Type != "server_error" {
			t.Errorf("%v: %+v %s", err, r, r.Body)
		}
		if r.Status != http.StatusInternalServerError || seen[r.ID] {
			t.Errorf("%v: status %d, id %s", err, r.Status, r.ID)
		}
		seen[r.ID] = true
	}
	if r := ReplyTo(NotFound); r.ID != "" {
		t.Error("a known outcome has an id")
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	full := &Error{Code: AccessExpired, Text: "other words", RetryAfter: time.Second}
	for name, c := range map[string]struct {
		err  error
		code Code
		text string
	}{
		"code":          {SecureReplay, SecureReplay, SecureReplay.Text()},
		"wrapped code":  {fmt.Errorf("a: %w", SecureReplay), SecureReplay, SecureReplay.Text()},
		"error":         {full, AccessExpired, "other words"},
		"wrapped error": {fmt.Errorf("a: %w", fmt.Errorf("b: %w", full)), AccessExpired, "other words"},
		"with text":     {WithText(InvalidRequest, "prompt is blank"), InvalidRequest, "prompt is blank"},
		"outer wins":    {New(PairingFailed, New(KeystoreLocked, nil)), PairingFailed, PairingFailed.Text()},
		"unknown":       {io.EOF, Internal, Internal.Text()},
	} {
		e := Of(c.err)
		if e.Code != c.code || e.Public() != c.text {
			t.Errorf("%s: %v %q", name, e.Code, e.Public())
		}
		if c.code != Internal && !errors.Is(c.err, c.code) {
			t.Errorf("%s: errors.Is does not find the code", name)
		}
	}
	if !errors.Is(New(NoMaster, io.EOF), io.EOF) || errors.Is(New(NoMaster, nil), io.EOF) {
		t.Error("causes are not found by errors.Is")
	}
}

func TestRetryAfterRoundsUp(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{0: "", 1: "1", time.Second: "1", time.Second + 1: "2", 30 * time.Second: "30"} {
		w := httptest.NewRecorder()
		Write(w, &Error{Code: PairingLimited, RetryAfter: wait})
		if got := w.Header().Get("Retry-After"); got != want || w.Code != http.StatusTooManyRequests {
			t.Errorf("%s: %q, status %d", wait, got, w.Code)
		}
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	r := Write(w, NotFound)
	h := w.Header()
	if w.Code != http.StatusNotFound || w.Body.String() != "Not Found" || h.Get("Content-Type") != textType || h.Get("Content-Length") != "9" || len(h["Retry-After"]) != 0 || r.Status != w.Code {
		t.Errorf("%d %v %s", w.Code, h, w.Body)
	}
}
