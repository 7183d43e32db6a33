package keystore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

const planted = "planted value that must not be seen"

var (
	ctx   = context.Background()
	cheap = FileOptions{MemoryKiB: minMemoryKiB, Passes: 1}
	words = secret.New([]byte("eight words that nobody guesses in a hurry"))
)

func open(t *testing.T, path string, passphrase secret.Bytes, o FileOptions) *File {
	t.Helper()
	f, err := OpenFile(path, passphrase, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// filled returns the path of a store with one item.
func filled(t *testing.T, passphrase secret.Bytes) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keystore")
	f := open(t, path, passphrase, cheap)
	if err := f.Put(ctx, "service", "account", secret.New([]byte(planted))); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func holds(t *testing.T, path string, passphrase secret.Bytes) {
	t.Helper()
	v, err := open(t, path, passphrase, cheap).Get(ctx, "service", "account")
	if err != nil || string(v.Expose()) != planted {
		t.Errorf("the item is gone: %v", err)
	}
}

func TestNothingReadableInASealedFile(t *testing.T) {
	t.Parallel()
	raw := read(t, filled(t, words))
	for _, text := range []string{planted, "service", "account", "cGxhbnRl"} {
		if bytes.Contains(raw, []byte(text)) {
			t.Errorf("the file shows %q", text)
		}
	}
	if !bytes.Contains(read(t, filled(t, secret.Bytes{})), []byte("cGxhbnRl")) {
		t.Error("this test cannot fail: an unwrapped file does not show it either")
	}
}

func TestPassphrases(t *testing.T) {
	t.Parallel()
	sealed, plain := filled(t, words), filled(t, secret.Bytes{})
	for name, c := range map[string]struct {
		path       string
		passphrase secret.Bytes
		want       error
	}{
		"right":                     {sealed, words, nil},
		"wrong":                     {sealed, secret.New([]byte("something else")), fault.KeystoreLocked},
		"none":                      {sealed, secret.Bytes{}, fault.KeystoreLocked},
		"unwrapped, none":           {plain, secret.Bytes{}, nil},
		"unwrapped, one it ignores": {plain, words, nil},
	} {
		before := read(t, c.path)
		f, err := OpenFile(c.path, c.passphrase, cheap)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil && c.want == nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(before, read(t, c.path)) {
			t.Errorf("%s: opening changed the file", name)
		}
	}
	if open(t, sealed, words, cheap).Strength() != Passphrase || open(t, plain, secret.Bytes{}, cheap).Strength() != Unwrapped {
		t.Error("the strength is not what the file has")
	}
}

func TestEveryByteOfASealedFileCounts(t *testing.T) {
	t.Parallel()
	path := filled(t, words)
	good := read(t, path)
	try := func(what string, at int, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(path, words, cheap)
		if !errors.Is(err, fault.KeystoreLocked) && !errors.Is(err, fault.KeystoreCorrupt) {
			t.Fatalf("%s at byte %d: %v", what, at, err)
		}
		if f != nil || !bytes.Equal(read(t, path), raw) {
			t.Fatalf("%s at byte %d: the file was changed", what, at)
		}
		if strings.Contains(err.Error(), planted) {
			t.Fatalf("%s at byte %d: the error shows the value", what, at)
		}
	}
	for i := range good {
		try("cut", i, good[:i])
		bad := bytes.Clone(good)
		bad[i] ^= 0x80
		try("a flipped bit", i, bad)
	}
	try("one byte more", len(good), append(bytes.Clone(good), 0))
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	holds(t, path, words)
}

// TestWhatAFileMayAskFor: parameters from the file are bounded before any
// memory is spent on them.
func TestWhatAFileMayAskFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		h  header
		ok bool
	}{
		"least":          {header{mode: modePassphrase, memory: minMemoryKiB, passes: 1, lanes: 1}, true},
		"most":           {header{mode: modePassphrase, memory: maxMemoryKiB, passes: maxPasses, lanes: maxLanes}, true},
		"little memory":  {header{mode: modePassphrase, memory: minMemoryKiB - 1, passes: 1, lanes: 1}, false},
		"much memory":    {header{mode: modePassphrase, memory: maxMemoryKiB + 1, passes: 1, lanes: 1}, false},
		"no pass":        {header{mode: modePassphrase, memory: minMemoryKiB, lanes: 1}, false},
		"many passes":    {header{mode: modePassphrase, memory: minMemoryKiB, passes: maxPasses + 1, lanes: 1}, false},
		"no lane":        {header{mode: modePassphrase, memory: minMemoryKiB, passes: 1}, false},
		"many lanes":     {header{mode: modePassphrase, memory: minMemoryKiB, passes: 1, lanes: maxLanes + 1}, false},
		"unwrapped":      {header{}, true},
		"unwrapped cost": {header{passes: 1}, false},
		"unwrapped salt": {header{salt: [saltSize]byte{1}}, false},
		"another mode":   {header{mode: 2}, false},
	} {
		got, _, err := parseHeader(c.h.append(nil))
		if (err == nil) != c.ok || c.ok && got != c.h {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	good := header{}.append(nil)
	for at, b := range map[int]byte{0: 'X', 4: 2, 15: 1} {
		bad := bytes.Clone(good)
		bad[at] = b
		if _, _, err := parseHeader(bad); err == nil {
			t.Errorf("byte %d may be anything", at)
		}
	}
}

func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	path := filled(t, secret.Bytes{})
	f := open(t, path, secret.Bytes{}, cheap)
	before := read(t, path)
	room := (MaxFileSize - len(before) - len(`,"large":""`)) / 4 * 3
	if err := f.Put(ctx, "service", "large", secret.Take(make([]byte, room+3))); !errors.Is(err, fault.KeystoreDenied) {
		t.Errorf("past the limit: %v", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("a refused item changed the file")
	}
	if err := f.Put(ctx, "service", "large", secret.Take(make([]byte, room))); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	holds(t, path, secret.Bytes{})
	if err := os.WriteFile(path, make([]byte, MaxFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path, secret.Bytes{}, cheap); !errors.Is(err, fault.KeystoreCorrupt) {
		t.Errorf("a file past the limit: %v", err)
	}
}

func TestFilesThatAreNotOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filled(t, words)
	link, dangling, folder, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "folder"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.Symlink(good, link), os.Symlink(filepath.Join(dir, "none"), dangling), os.Mkdir(folder, 0o700), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dangling, folder, pipe} {
		if _, err := OpenFile(path, words, cheap); !errors.Is(err, fault.KeystoreDenied) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "none")); err == nil {
		t.Error("a dangling link was followed and its target created")
	}
	if os.Geteuid() == 0 {
		foreign := filled(t, words)
		if err := os.Chown(foreign, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(foreign, words, cheap); !errors.Is(err, fault.KeystoreDenied) {
			t.Errorf("a file of another user: %v", err)
		}
	}
	if err := os.Chmod(good, 0o644); err != nil {
		t.Fatal(err)
	}
	holds(t, good, words)
	if info, err := os.Stat(good); err != nil || info.Mode() != atomicfile.Mode {
		t.Errorf("a loose mode stays %v, %v", info.Mode(), err)
	}
}

var errDisk = errors.New("no space left")

// TestFailedWritesChangeNothing: in memory or on disk.
func TestFailedWritesChangeNothing(t *testing.T) {
	t.Parallel()
	path := filled(t, words)
	before := read(t, path)
	full := cheap
	full.Write = func(string, []byte) error { return errDisk }
	f := open(t, path, words, full)
	for what, err := range map[string]error{
		"replacing": f.Put(ctx, "service", "account", secret.New([]byte("new"))),
		"adding":    f.Put(ctx, "other", "account", secret.New([]byte("new"))),
		"deleting":  f.Delete(ctx, "service", "account"),
		"sealing":   f.SetPassphrase(secret.New([]byte("other"))),
		"unsealing": f.SetPassphrase(secret.Bytes{}),
	} {
		if !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", what, err)
		}
	}
	v, err := f.Get(ctx, "service", "account")
	if err != nil || string(v.Expose()) != planted || f.Strength() != Passphrase {
		t.Errorf("a failed write reached memory: %v", err)
	}
	if others, err := f.List(ctx, "other"); err != nil || len(others) != 0 {
		t.Errorf("a failed write added %q, %v", others, err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("a failed write reached the disk")
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "k"), words, full); !errors.Is(err, errDisk) {
		t.Errorf("creating: %v", err)
	}
}

func TestNoRandomnessNoFile(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]io.Reader{"broken": iotest.ErrReader(io.ErrClosedPipe), "short": strings.NewReader(strings.Repeat("s", saltSize+3))} {
		dry := cheap
		dry.Rand = r
		path := filepath.Join(t.TempDir(), "k")
		if _, err := OpenFile(path, words, dry); err == nil {
			t.Errorf("%s: a file was sealed without randomness", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a file was written", name)
		}
	}
}

func TestNoncesAndSaltsAreFresh(t *testing.T) {
	t.Parallel()
	path := filled(t, words)
	f := open(t, path, words, cheap)
	seen := map[string]bool{}
	for range 20 {
		if err := f.Put(ctx, "service", "account", secret.New([]byte(planted))); err != nil {
			t.Fatal(err)
		}
		nonce := string(read(t, path)[32:headerSize])
		if seen[nonce] {
			t.Fatal("a nonce came twice under one key")
		}
		seen[nonce] = true
	}
	salt := read(t, path)[16:32]
	if err := f.SetPassphrase(words); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(salt, read(t, path)[16:32]) {
		t.Error("a new passphrase kept the salt")
	}
}

func TestSetPassphrase(t *testing.T) {
	t.Parallel()
	other := secret.New([]byte("another passphrase"))
	path := filled(t, secret.Bytes{})
	f := open(t, path, secret.Bytes{}, cheap)
	for i, next := range []secret.Bytes{words, other, {}, words} {
		if err := f.SetPassphrase(next); err != nil {
			t.Fatal(err)
		}
		if err := opens(f, next); err != nil {
			t.Errorf("step %d: the new passphrase: %v", i, err)
		}
		holds(t, path, next)
		if !next.IsZero() && !errors.Is(opens(f, secret.New([]byte("wrong"))), fault.KeystoreLocked) {
			t.Errorf("step %d: a wrong passphrase passes", i)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != atomicfile.Mode {
			t.Errorf("step %d: mode %v, %v", i, info.Mode(), err)
		}
	}
}

// TestReplacedValuesAreDestroyed looks at the memory that held them.
func TestReplacedValuesAreDestroyed(t *testing.T) {
	t.Parallel()
	f := open(t, filled(t, words), words, cheap)
	inside := func() []byte { return f.items["service"]["account"].Expose() }
	first := inside()
	if err := f.Put(ctx, "service", "account", secret.New([]byte("second"))); err != nil {
		t.Fatal(err)
	}
	second := inside()
	if err := f.Delete(ctx, "service", "account"); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(ctx, "service", "account", secret.New([]byte("third"))); err != nil {
		t.Fatal(err)
	}
	third, key := inside(), f.key.Expose()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"replaced": first, "deleted": second, "closed": third, "key": key} {
		if len(b) == 0 || !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s: the bytes are still there", name)
		}
	}
}

func TestStrengthsHaveWords(t *testing.T) {
	t.Parallel()
	for s, want := range map[Strength]string{invalidStrength: "unknown", Unwrapped: "unwrapped", Passphrase: "passphrase", LoginSession: "login session", Hardware: "hardware"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
}

// FuzzOpen: no file makes the parser panic, and what opens unwrapped can be
// written again.
func FuzzOpen(f *testing.F) {
	f.Add(append(header{}.append(nil), `{"a":{"b":"Yw=="}}`...))
	f.Add(append(header{}.append(nil), `{"a":{"b":null},"c":null}`...))
	f.Add(header{mode: modePassphrase, memory: minMemoryKiB, passes: 1, lanes: 1}.append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, body, err := parseHeader(raw)
		if err != nil || h.mode != modeUnwrapped {
			return
		}
		m, err := decodeItems(body)
		if err != nil {
			return
		}
		again, err := sealItems(h, secret.Bytes{}, nil, m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeItems(again[headerSize:])
		if err != nil {
			t.Fatal(err)
		}
		for service, accounts := range m {
			for account, v := range accounts {
				if !bytes.Equal(back[service][account].Expose(), v.Expose()) {
					t.Errorf("%q/%q changed", service, account)
				}
			}
		}
	})
}

// opens reports whether p opens the file as it is on disk.
func opens(f *File, p secret.Bytes) error {
	raw, err := readOurs(f.path)
	if err != nil {
		return err
	}
	probe := File{path: f.path, o: f.o}
	if err := probe.load(raw, p); err != nil {
		return err
	}
	return probe.Close()
}
