package blob

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
)

func newKey(t testing.TB, first byte) dek.Key {
	t.Helper()
	k, err := dek.New(secret.Take(bytes.Repeat([]byte{first}, dek.Size)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newStore(t testing.TB) *Store {
	t.Helper()
	keys := sealed.Keys{newKey(t, 1)}
	return &Store{Dir: filepath.Join(t.TempDir(), "chat-history", "blobs"), Keys: func() (sealed.Keys, error) { return keys, nil }}
}

func files(t *testing.T, s *Store) int {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries)
}

func put(t *testing.T, s *Store, content string) Hash {
	t.Helper()
	h, err := s.PutBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPutAndGet(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	content := strings.Repeat("a planted sentence ", 5000)
	h := put(t, s, content)
	if h != Of([]byte(content)) {
		t.Errorf("named %s", h)
	}
	before, err := os.Stat(s.Path(h))
	if err != nil || before.Mode() != 0o600 {
		t.Fatalf("%v, %v", before.Mode(), err)
	}
	if again := put(t, s, content); again != h || files(t, s) != 1 {
		t.Errorf("the same content is kept %d times", files(t, s))
	}
	if after, err := os.Stat(s.Path(h)); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written again, %v", err)
	}
	if got, err := s.Get(h); err != nil || string(got) != content {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	raw, err := os.ReadFile(s.Path(h))
	if err != nil || bytes.Contains(raw, []byte("planted")) {
		t.Errorf("the content lies in the file, %v", err)
	}
	other := put(t, s, "")
	list, err := s.List()
	want := []Hash{h, other}
	slices.Sort(want)
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("listed %v, %v", list, err)
	}
	if err := s.Remove(h, h, Of([]byte("never"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(h); !errors.Is(err, fs.ErrNotExist) || files(t, s) != 1 {
		t.Errorf("after removal: %v", err)
	}
}

// TestNamesAreNotTrusted: a file that does not open with the current key, or
// whose content has another hash, is written again; reading it fails.
func TestNamesAreNotTrusted(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	old := newKey(t, 2)
	h := put(t, s, "content")
	for name, make := range map[string]func() ([]byte, error){
		"garbage":          func() ([]byte, error) { return []byte("garbage"), nil },
		"an older key":     func() ([]byte, error) { return sealed.Seal(old, h.Label(), []byte("content"), nil) },
		"another content":  func() ([]byte, error) { return sealed.Seal(newKey(t, 1), h.Label(), []byte("contenT"), nil) },
		"another's file":   func() ([]byte, error) { return sealed.Seal(newKey(t, 1), Of(nil).Label(), []byte("content"), nil) },
		"half of the file": func() ([]byte, error) { b, err := os.ReadFile(s.Path(h)); return b[:len(b)/2], err },
	} {
		bad, err := make()
		if err == nil {
			err = os.WriteFile(s.Path(h), bad, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(h); err == nil {
			t.Errorf("%s was read", name)
		}
		if put(t, s, "content") != h {
			t.Fatal("another name")
		}
		if got, err := s.Get(h); err != nil || string(got) != "content" {
			t.Errorf("%s was trusted: %q, %v", name, got, err)
		}
	}
}

func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	h := put(t, s, "content")
	s.Keys = func() (sealed.Keys, error) { return nil, fault.KeystoreLocked }
	_, putErr := s.PutBytes([]byte("more"))
	_, getErr := s.Get(h)
	for name, err := range map[string]error{"put": putErr, "get": getErr, "verify": s.Verify(h)} {
		if !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Keys = func() (sealed.Keys, error) { return nil, nil }
	if _, err := s.PutBytes([]byte("more")); !errors.Is(err, sealed.ErrUnknownKey) || files(t, s) != 1 {
		t.Errorf("put with no key: %v", err)
	}
}

// fickle yields other content when read a second time.
type fickle struct {
	*strings.Reader
	reads int
}

func (f *fickle) Seek(offset int64, whence int) (int64, error) {
	f.reads++
	f.Reader = strings.NewReader(strings.Repeat("x", f.reads))
	return 0, nil
}

func (f *fickle) WriteTo(w io.Writer) (int64, error) { return f.Reader.WriteTo(w) }

func TestSourceThatChanges(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, _, err := s.Put(&fickle{Reader: strings.NewReader("")}); !errors.Is(err, ErrChanged) || files(t, s) != 0 {
		t.Errorf("%v, %d files", err, files(t, s))
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if n, err := s.Sweep(nil, time.Now()); n != 0 || err != nil {
		t.Fatalf("a missing folder: %d, %v", n, err)
	}
	kept, orphan, young := put(t, s, "kept"), put(t, s, "orphan"), put(t, s, "young")
	temp, foreign := disk.TempName(s.Path(kept)), filepath.Join(s.Dir, "notes.txt")
	past := time.Now().Add(-time.Hour)
	for _, path := range []string{temp, foreign} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{s.Path(kept), s.Path(orphan), temp, foreign} {
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	if _, err := s.Sweep(func(Hash) (bool, error) { return false, broken }, time.Now().Add(-time.Minute)); !errors.Is(err, broken) || files(t, s) < 4 {
		t.Errorf("not knowing who refers: %v, %d files", err, files(t, s))
	}
	if _, err := s.Sweep(func(h Hash) (bool, error) { return h == kept, nil }, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{s.Path(kept): true, s.Path(young): true, foreign: true, s.Path(orphan): false, temp: false} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if err := os.Chtimes(s.Path(young), past, past); err != nil {
		t.Fatal(err)
	}
	put(t, s, "young") // putting it again restarts the grace period
	if n, err := s.Sweep(func(h Hash) (bool, error) { return h == kept, nil }, time.Now().Add(-time.Minute)); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
}

// TestSpillOver tries each kind one byte below its limit and at it.
func TestSpillOver(t *testing.T) {
	t.Parallel()
	for kind, limit := range map[Kind]int{Image: 16384, Document: 16384, Audio: 262144, Video: 65536} {
		s := newStore(t)
		for _, n := range []int{limit - 1, limit} {
			in := []Attachment{{Kind: kind, Filename: "f.bin", Format: "wav", Content: bytes.Repeat([]byte("z"), n)}}
			out, err := s.Spill(in)
			if err != nil {
				t.Fatal(err)
			}
			spilled := out[0].Hash != "" && out[0].Content == nil
			if spilled != (n >= limit) || out[0].Size != int64(n) || files(t, s) != n-limit+1 || in[0].Content == nil {
				t.Errorf("%s of %d bytes: spilled %v, %d files", kind, n, spilled, files(t, s))
			}
			var again []Attachment
			raw, err := json.Marshal(out)
			if err == nil {
				err = json.Unmarshal(raw, &again)
			}
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := s.Load(again[0])
			if err != nil || !bytes.Equal(loaded.Content, in[0].Content) || loaded.Kind != kind || loaded.Filename != "f.bin" || loaded.Size != int64(n) {
				t.Errorf("%s of %d bytes came back as %d, %v", kind, n, len(loaded.Content), err)
			}
		}
	}
	if _, err := newStore(t).Spill([]Attachment{{Kind: "program"}}); !errors.Is(err, ErrAttachment) {
		t.Error(err)
	}
}

func TestAttachmentJSON(t *testing.T) {
	t.Parallel()
	h := Of(nil)
	for want, a := range map[string]Attachment{
		`{"byteCount":40000,"hash":"` + string(h) + `","type":"image_ref"}`:                               {Kind: Image, Hash: h, Size: 40000},
		`{"fileSize":5,"filename":"a.txt","hash":"` + string(h) + `","type":"document_ref"}`:              {Kind: Document, Filename: "a.txt", Hash: h, Size: 5},
		`{"byteCount":7,"filename":"a.wav","format":"wav","hash":"` + string(h) + `","type":"audio_ref"}`: {Kind: Audio, Filename: "a.wav", Format: "wav", Hash: h, Size: 7},
		`{"data":"AAE=","type":"image"}`:                                        {Kind: Image, Content: []byte{0, 1}, Size: 2},
		`{"content":"héllo","fileSize":6,"filename":"a.txt","type":"document"}`: {Kind: Document, Filename: "a.txt", Content: []byte("héllo"), Size: 6},
	} {
		got, err := json.Marshal(a)
		if err != nil || string(got) != want {
			t.Errorf("wrote %s, %v", got, err)
		}
		var back Attachment
		if err := json.Unmarshal([]byte(want), &back); err != nil || back.Size != a.Size || back.Hash != a.Hash || !bytes.Equal(back.Content, a.Content) {
			t.Errorf("%s became %+v, %v", want, back, err)
		}
	}
	for _, bad := range []string{`{}`, `{"type":"program","data":""}`, `{"type":"image"}`, `{"type":"image","data":"?"}`, `{"type":"image_ref","hash":"../../etc/passwd"}`,
		`{"type":"image_ref"}`, `{"type":"_ref","hash":"` + string(h) + `"}`, `{"type":1}`, `{"type":"document","data":"AA=="}`} {
		if err := json.Unmarshal([]byte(bad), new(Attachment)); !errors.Is(err, ErrAttachment) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParseHash(t *testing.T) {
	t.Parallel()
	good := string(Of([]byte("x")))
	if h, err := ParseHash(good); err != nil || string(h) != good {
		t.Error(err)
	}
	for _, s := range []string{"", good[1:], good + "0", strings.ToUpper(good), "../" + good[3:], strings.Repeat("g", 64)} {
		if _, err := ParseHash(s); !errors.Is(err, ErrHash) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzAttachment: no JSON panics, and what parses is written and read again
// as the same.
func FuzzAttachment(f *testing.F) {
	f.Add([]byte(`{"data":"AAE=","type":"image"}`))
	f.Add([]byte(`{"fileSize":5,"filename":"a.txt","hash":"` + string(Of(nil)) + `","type":"document_ref"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a, b Attachment
		if json.Unmarshal(raw, &a) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &b); err != nil || b.Kind != a.Kind || b.Hash != a.Hash || string(b.Content) != string(a.Content) || b.Filename != a.Filename {
			t.Fatalf("%s became %s, %v", raw, out, err)
		}
	})
}
