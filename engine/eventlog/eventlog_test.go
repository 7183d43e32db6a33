package eventlog

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/secret"
)

var (
	key = secret.New(bytes.Repeat([]byte{7}, KeySize))
	at  = time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("x", 3600))
)

func open(t *testing.T, path string, o Options) *Log {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return at }
	}
	l, err := Open(path, key, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// filled writes n events and returns the file and its head.
func filled(t *testing.T, n int, o Options) (string, Head) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "security.log")
	l := open(t, path, o)
	for i := range n {
		if err := l.Append("event", slog.Int("n", i), slog.String("note", "äöü </&> \"quoted\"")); err != nil {
			t.Fatal(err)
		}
	}
	return path, l.Head()
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(raw)))
}

func write(t *testing.T, path string, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLines computes the chain a second time, from the bytes of the file.
func TestLines(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 3, Options{})
	prev := strings.Repeat("0", 64)
	for i, line := range lines(t, path) {
		line = strings.TrimSuffix(line, "\n")
		_, rest, _ := strings.Cut(line, `"hash":"`)
		hash := rest[:64]
		mac := hmac.New(sha256.New, key.Expose())
		mac.Write([]byte(prev + "\n" + strings.Replace(line, `"hash":"`+hash+`",`, "", 1)))
		if want := hex.EncodeToString(mac.Sum(nil)); hash != want {
			t.Errorf("line %d has the hash %s, want %s", i+1, hash, want)
		}
		want := fmt.Sprintf(`{"event":"event","hash":"%s","n":%d,"note":"äöü </&> \"quoted\"","prev":"%s","seq":%d,"time":"2026-01-02T02:04:05.000000006Z"}`, hash, i, prev, i+1)
		if line != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
		prev = hash
	}
	if head != (Head{3, prev}) {
		t.Errorf("head %+v", head)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestVerifyAccepts(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 5, Options{})
	if got, err := Verify(path, key, head); err != nil || got != head {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Verify(path, key, Head{}); err != nil {
		t.Errorf("without a head: %v", err)
	}
	earlier := head
	l := open(t, path, Options{})
	if err := l.Append("later"); err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(path, key, earlier); err != nil || got.Seq != 6 {
		t.Errorf("with an earlier head: %+v, %v", got, err)
	}
	if got, err := Verify(filepath.Join(t.TempDir(), "none"), key, Head{}); err != nil || got.Seq != 0 {
		t.Errorf("no log yet: %+v, %v", got, err)
	}
}

func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 5, Options{})
	good := lines(t, path)
	without := func(i int) string { return strings.Join(append(append([]string{}, good[:i]...), good[i+1:]...), "") }
	other, _ := filled(t, 5, Options{Now: func() time.Time { return at.Add(time.Hour) }})
	for name, c := range map[string]struct {
		text string
		line int // of the problem; 0 for the end of the log
	}{
		"first cut":    {without(0), 1},
		"middle cut":   {without(2), 3},
		"last cut":     {without(4), 0},
		"all cut":      {"", 0},
		"swapped":      {good[0] + good[2] + good[1] + good[3] + good[4], 2},
		"twice":        {good[0] + good[0] + good[1], 2},
		"edited":       {strings.Replace(strings.Join(good, ""), `"n":3`, `"n":4`, 1), 4},
		"added member": {strings.Replace(strings.Join(good, ""), `{"event"`, `{"added":1,"event"`, 1), 1},
		"torn":         {strings.Join(good[:4], "") + good[4][:20], 5},
		"blank line":   {good[0] + "\n" + good[1], 2},
		"no JSON":      {good[0] + "x\n", 2},
		"another log":  {strings.Join(lines(t, other), ""), 0},
		"its tail":     {good[0] + lines(t, other)[1], 2},
		"long line":    {good[0] + strings.Repeat("x", MaxLine+1) + "\n", 2},
	} {
		p := filepath.Join(t.TempDir(), "security.log")
		write(t, p, c.text)
		_, err := Verify(p, key, head)
		var problem *Problem
		if !errors.As(err, &problem) || problem.Line != c.line || problem.File != "security.log" {
			t.Errorf("%s: %v, want line %d", name, err, c.line)
		}
	}
	if _, err := Verify(path, secret.New(make([]byte, KeySize)), head); err == nil {
		t.Error("another key verifies")
	}
}

func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 2, Options{})
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		write(t, path, string(bad))
		if got, err := Verify(path, key, head); err == nil {
			t.Fatalf("bit %d of byte %d does not count: %+v", bit%8, bit/8, got)
		}
	}
}

// TestTornLine: what a crash left is cut, said, and followed by a good line.
func TestTornLine(t *testing.T) {
	t.Parallel()
	path, _ := filled(t, 2, Options{})
	whole := lines(t, path)
	for cut := 1; cut < len(whole[1])-1; cut += 7 {
		write(t, path, whole[0]+whole[1][:cut])
		l := open(t, path, Options{})
		if l.Torn() != cut || l.Head().Seq != 1 {
			t.Fatalf("cut at %d: torn %d, head %+v", cut, l.Torn(), l.Head())
		}
		if err := l.Append("after"); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(path, key, l.Head()); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	write(t, path, "no line feed")
	if l := open(t, path, Options{}); l.Torn() != 12 || l.Head().Seq != 0 {
		t.Errorf("nothing but a torn line: %d, %+v", l.Torn(), l.Head())
	}
	write(t, path, whole[0]+"garbage\n")
	if _, err := Open(path, key, Options{}); err == nil || !strings.Contains(err.Error(), "log verify") {
		t.Errorf("a last line that is none: %v", err)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 20, Options{RotateAt: 600})
	files, err := Files(path)
	if err != nil || len(files) < 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files[:len(files)-1] {
		if info, err := os.Stat(f); err != nil || info.Size() < 600 || info.Size() > 900 {
			t.Errorf("%s: %v", f, err)
		}
	}
	if got, err := Verify(path, key, head); err != nil || got != head {
		t.Errorf("%+v, %v", got, err)
	}
	if l := open(t, path, Options{RotateAt: 600}); l.Head() != head {
		t.Errorf("reopened at %+v", l.Head())
	}
	if err := os.Remove(files[2]); err != nil {
		t.Fatal(err)
	}
	var problem *Problem
	if _, err := Verify(path, key, head); !errors.As(err, &problem) || problem.File != filepath.Base(files[3]) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestStopsBetweenTheStepsOfARotation: renamed, and no new file yet.
func TestStopsBetweenTheStepsOfARotation(t *testing.T) {
	t.Parallel()
	path, head := filled(t, 3, Options{})
	if err := os.Rename(path, path+".000000000003"); err != nil {
		t.Fatal(err)
	}
	l := open(t, path, Options{})
	if l.Head() != head {
		t.Fatalf("head %+v, want %+v", l.Head(), head)
	}
	if err := l.Append("after"); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(path, key, head); err != nil {
		t.Error(err)
	}
}

func TestLimitsOfALine(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "l"), Options{})
	if err := l.Append("event", slog.String("x", "")); err != nil {
		t.Fatal(err)
	}
	overhead := int(l.size) - 1
	if err := l.Append("event", slog.String("x", strings.Repeat("x", MaxLine-overhead))); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := l.Append("event", slog.String("x", strings.Repeat("x", MaxLine-overhead+1))); err == nil {
		t.Error("past the limit")
	}
	for _, name := range []string{"seq", "time", "event", "prev", "hash", ""} {
		if err := l.Append("event", slog.String(name, "x")); err == nil {
			t.Errorf("a field may be called %q", name)
		}
	}
	if got, err := Verify(l.path, key, l.Head()); err != nil || got.Seq != 2 {
		t.Errorf("refused events left traces: %+v, %v", got, err)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, Options{})
	addr, err := address.Parse("f39fd6e51aad88f6f4ce6ab8827279cfffb92266")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append("e", slog.Any("a", addr), slog.Bool("b", true), slog.Uint64("c", 1<<63), slog.Duration("d", time.Second),
		slog.Any("err", errors.New("x")), slog.Any("s", secret.New([]byte("hunter2")))); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines(t, path)[0]), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"a": addr.String(), "b": true, "d": "1s", "err": "x", "s": secret.Redacted} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	write(t, target, "")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, key, Options{}); err == nil {
		t.Error("a link was followed")
	}
	if _, err := Open(dir, key, Options{}); err == nil {
		t.Error("a folder was opened")
	}
	for _, n := range []int{0, KeySize - 1, KeySize + 1} {
		if _, err := Open(target, secret.Take(make([]byte, n)), Options{}); err == nil {
			t.Errorf("a key of %d bytes", n)
		}
	}
	l := open(t, filepath.Join(dir, "l"), Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append("late"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, Options{RotateAt: 2000})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 10 {
				if err := l.Append("event", slog.Int("from", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got, err := Verify(path, key, l.Head()); err != nil || got.Seq != 80 {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"event":"e","hash":"` + zeroHash + `","prev":"` + zeroHash + `","seq":1,"time":"t"}` + "\n"))
	f.Add([]byte("\n"))
	f.Add([]byte(`{"hash":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "l")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Verify(path, key, Head{}); err == nil && got.Seq != 0 {
			t.Errorf("a forged log verifies up to %d", got.Seq)
		}
	})
}
