package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
)

func testKey(t testing.TB, first byte) dek.Key {
	t.Helper()
	b := make([]byte, dek.Size)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := dek.New(secret.Take(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

var vectorSalt = []byte("\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf")

type vector struct {
	Note, Expect, Name string
	Purpose            Purpose
	Sealed             string
	SealedSHA256       string `json:"sealed_sha256"`
	PlainSHA256        string `json:"plain_sha256"`
	SealedLen          int    `json:"sealed_len"`
	PlainLen           int    `json:"plain_len"`
}

// data returns the sealed bytes; those too long to print are made from the
// pattern, and their hash is the other implementation's.
func (v vector) data(t testing.TB) []byte {
	t.Helper()
	if v.SealedSHA256 == "" {
		b, err := hex.DecodeString(v.Sealed)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b, err := Seal(testKey(t, 0), Label{v.Purpose, v.Name}, pattern(v.PlainLen), bytes.NewReader(vectorSalt))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); len(b) != v.SealedLen || hex.EncodeToString(sum[:]) != v.SealedSHA256 {
		t.Fatalf("%s: sealed %d bytes differ from the vector", v.Note, len(b))
	}
	return b
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors/osec.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Cases) < 30 {
		t.Fatalf("%d cases, %v", len(file.Cases), err)
	}
	return file.Cases
}

var outcomes = map[string]error{
	"success": nil, "damaged": ErrDamaged, "unknown_key": ErrUnknownKey, "header": ErrHeader, "truncated": ErrTruncated, "not_sealed": ErrNotSealed,
}

func TestVectors(t *testing.T) {
	t.Parallel()
	keys := Keys{testKey(t, 0)}
	for _, v := range vectors(t) {
		t.Run(v.Note, func(t *testing.T) {
			t.Parallel()
			want, known := outcomes[v.Expect]
			if !known {
				t.Fatalf("the vector expects %q", v.Expect)
			}
			plain, err := Open(keys, Label{v.Purpose, v.Name}, v.data(t))
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, want)
			}
			if sum := sha256.Sum256(plain); want == nil && (len(plain) != v.PlainLen || hex.EncodeToString(sum[:]) != v.PlainSHA256) {
				t.Errorf("opened %d bytes that differ", len(plain))
			}
		})
	}
}

// TestWhatWeSealIsTheVector: the small format-2 vectors come out byte for byte.
func TestWhatWeSealIsTheVector(t *testing.T) {
	t.Parallel()
	tried := 0
	for _, v := range vectors(t) {
		if v.Expect != "success" || v.SealedSHA256 != "" || len(v.Sealed) < 10 || v.Sealed[:10] != "4f53454302" {
			continue
		}
		tried++
		got, err := Seal(testKey(t, 0), Label{v.Purpose, v.Name}, pattern(v.PlainLen), bytes.NewReader(vectorSalt))
		if err != nil || hex.EncodeToString(got) != v.Sealed {
			t.Errorf("%s: %v\n%x", v.Note, err, got)
		}
	}
	if tried < 3 {
		t.Errorf("only %d vectors tried", tried)
	}
}

// TestStreaming seals and opens sizes around the chunk's edges through
// readers that yield one byte, halves, and data together with their error.
func TestStreaming(t *testing.T) {
	t.Parallel()
	key, label := testKey(t, 0), Label{Blob, "stream"}
	for _, n := range []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2 * ChunkSize, 3*ChunkSize + 7} {
		want := pattern(n)
		whole, err := Seal(key, label, want, bytes.NewReader(vectorSalt))
		if err != nil {
			t.Fatal(err)
		}
		for name, src := range map[string]io.Reader{
			"half": iotest.HalfReader(bytes.NewReader(want)), "data and EOF": iotest.DataErrReader(bytes.NewReader(want)), "one byte": iotest.OneByteReader(bytes.NewReader(want)),
		} {
			var out bytes.Buffer
			w, err := NewWriter(&out, key, label, bytes.NewReader(vectorSalt))
			if err != nil {
				t.Fatal(err)
			}
			if copied, err := io.Copy(w, src); err != nil || copied != int64(n) {
				t.Fatalf("%s: %d, %v", name, copied, err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), whole) {
				t.Errorf("%s, %d bytes: the stream differs from the whole", name, n)
			}
		}
		r, err := NewReader(iotest.HalfReader(bytes.NewReader(whole)), Keys{key}, label)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(struct{ io.Reader }{r}, want); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestEveryByteCounts flips each byte, cuts at each length and appends one.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	keys, label := Keys{testKey(t, 0), testKey(t, 1)}, Label{JSON, "tasks.json"}
	good, err := Seal(keys[0], label, pattern(300), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, bit := range []byte{0x01, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			if _, err := Open(keys, label, bad); err == nil {
				t.Errorf("byte %d flipped by %#x went unnoticed", i, bit)
			}
		}
		if _, err := Open(keys, label, good[:i]); err == nil {
			t.Errorf("cut to %d bytes went unnoticed", i)
		}
	}
	if _, err := Open(keys, label, append(bytes.Clone(good), 0)); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// TestChunksKeepTheirPlace swaps, drops, repeats and cuts whole chunks, and
// takes one from another file of the same key and name.
func TestChunksKeepTheirPlace(t *testing.T) {
	t.Parallel()
	key, label := testKey(t, 0), Label{Blob, "x"}
	const sealedChunk = ChunkSize + TagSize
	data := pattern(3*ChunkSize + 10)
	good, err := Seal(key, label, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Seal(key, label, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	chunk := func(of []byte, i int) []byte {
		return of[HeaderSize+i*sealedChunk : min(len(of), HeaderSize+(i+1)*sealedChunk)]
	}
	head := good[:HeaderSize]
	for name, parts := range map[string][][]byte{
		"swapped":              {head, chunk(good, 1), chunk(good, 0), chunk(good, 2), chunk(good, 3)},
		"dropped":              {head, chunk(good, 0), chunk(good, 2), chunk(good, 3)},
		"repeated":             {head, chunk(good, 0), chunk(good, 0), chunk(good, 1), chunk(good, 2), chunk(good, 3)},
		"cut at an edge":       {head, chunk(good, 0), chunk(good, 1)},
		"cut behind a tag":     {head, chunk(good, 0), chunk(good, 1), chunk(good, 2)[:TagSize]},
		"from another file":    {head, chunk(good, 0), chunk(other, 1), chunk(good, 2), chunk(good, 3)},
		"another file's head":  {other[:HeaderSize], chunk(good, 0), chunk(good, 1), chunk(good, 2), chunk(good, 3)},
		"last repeated":        {good, chunk(good, 3)},
		"no chunk at all":      {head},
		"only the last":        {head, chunk(good, 3)},
		"15 bytes of a chunk":  {head, chunk(good, 0), chunk(good, 1)[:TagSize-1]},
		"16 bytes of the head": {head[:16]},
	} {
		if _, err := Open(Keys{key}, label, bytes.Join(parts, nil)); err == nil {
			t.Errorf("%s: went unnoticed", name)
		}
	}
}
