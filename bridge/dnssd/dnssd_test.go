package dnssd

import (
	"bytes"
	"errors"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"osaurus/engine/discovery"
)

func TestTXT(t *testing.T) {
	t.Parallel()
	txt := map[string]string{"id": "x", "empty": "", "name": "ü=\\\"", "long": strings.Repeat("y", maxItem-len("long="))}
	b, err := appendTXT(nil, txt)
	if err != nil {
		t.Fatal(err)
	}
	if got := parseTXT(b); !maps.Equal(got, txt) {
		t.Errorf("came back as %q", got)
	}
	txt["long"] += "y"
	if _, err := appendTXT(nil, txt); err == nil {
		t.Error("an item too long was written")
	}
	for raw, want := range map[string]map[string]string{
		"":                       {},
		"\x00":                   {},
		"\x05":                   {}, // cut short
		"\x04k=1":                {},
		"\x03k=1\x03K=2":         {"k": "1"}, // the first counts, without case
		"\x01k\x02=1\x05N=\xff=": {"k": ""},
		"\x03a=b\xff":            {"a": "b"},
	} {
		if got := parseTXT([]byte(raw)); !maps.Equal(got, want) {
			t.Errorf("%q read as %q, want %q", raw, got, want)
		}
	}
}

func FuzzParseTXT(f *testing.F) {
	f.Add([]byte("\x03a=b\x01c"))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		txt := parseTXT(b)
		again, err := appendTXT(nil, txt)
		if err != nil {
			return // a value came with a key that has no "=", one byte less
		}
		if !maps.Equal(parseTXT(again), txt) {
			t.Errorf("%q does not come back", txt)
		}
	})
}

func TestRenamed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 31) // 62 bytes
	for tries, want := range map[int]string{0: long, 1: strings.Repeat("é", 29) + " (2)", 8: strings.Repeat("é", 29) + " (9)"} {
		got := renamed(long, tries)
		if got != want || len(got) > discovery.MaxInstance {
			t.Errorf("after %d tries: %q", tries, got)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, e := range []Error{Unknown, NameConflict, NotRunning, PolicyDenied, -1} {
		if e.Error() == "" || !errors.Is(e, e) {
			t.Errorf("%d says %q", int32(e), e.Error())
		}
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	ticks := make(chan time.Time, 100)
	l, err := newLoop(func(err error) { t.Error(err) }, func(now time.Time) time.Time {
		select {
		case ticks <- now:
		default:
		}
		return now.Add(time.Millisecond)
	})
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan int, 100)
	for i := range 50 {
		l.do(func() { order <- i })
	}
	for i := range 50 {
		if got := <-order; got != i {
			t.Fatalf("%d came as number %d", got, i)
		}
	}
	<-ticks
	<-ticks // by itself
	if err := l.stop(); err != nil {
		t.Error(err)
	}
	l.do(func() { t.Error("ran after stop") })
}

// TestDeclarations holds the declarations that are used without the library
// against its own header.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler")
	}
	if exec.Command(cc, "-include", "dns_sd.h", "-fsyntax-only", "-xc", "/dev/null").Run() != nil {
		t.Skip("needs dns_sd.h (Debian package libavahi-compat-libdnssd-dev)")
	}
	for what, args := range map[string][]string{"against the header": {"-include", "dns_sd.h"}, "linked": {"-DOSR_LINKED"}} {
		args = append(args, "-fsyntax-only", "-Wall", "-Werror", "-Itestdata/cgo", "native.c")
		if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
	spoiled := exec.Command(cc, "-include", "dns_sd.h", "-fsyntax-only", "-Itestdata/cgo", "-xc", "-")
	spoiled.Stdin = bytes.NewReader([]byte("typedef void (*DNSServiceBrowseReply)(int);\n"))
	if spoiled.Run() == nil {
		t.Error("a wrong declaration was accepted")
	}
}
