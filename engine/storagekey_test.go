package engine_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"osaurus/engine/pairing"
	"osaurus/engine/storage/dek"
)

// recorder passes connections on and keeps what crosses them, both ways.
type recorder struct {
	mu  sync.Mutex
	raw bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.raw.Write(p)
}

// seen returns what was recorded so far.
func (r *recorder) seen() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.raw.Bytes())
}

// between returns the address of a recorder in front of to.
func (r *recorder) between(t testing.TB, to *url.URL) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // it may be closed
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.Host)
			if err != nil {
				_ = in.Close() // the test fails by itself
				continue
			}
			pass := func(dst, src net.Conn) {
				_, _ = io.Copy(io.MultiWriter(dst, r), src) // either side may go away
				_ = dst.Close()
			}
			go pass(in, out)
			go pass(out, in)
		}
	}()
	u := *to
	u.Host = l.Addr().String()
	return &u
}

// TestStorageKeyNeverLeaves: not in what crosses the network while two hosts
// pair and talk, not in an export, not in the log or any file but the
// keystore's (decisions C23).
func TestStorageKeyNeverLeaves(t *testing.T) {
	t.Parallel()
	homes := [2]string{t.TempDir(), t.TempDir()}
	alice, bob := start(t, homes[0]), start(t, homes[1])
	var wire recorder
	target := alice.agent()
	target.BaseURL = wire.between(t, alice.url)
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), target, "assistant")
	wait()
	if err != nil {
		t.Fatal(err)
	}
	if status, answer, err := bob.ask(peer, "hello"); err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	var keys [][]byte
	collect := func() {
		for _, h := range []*host{alice, bob} {
			key, err := h.Keystore().Get(t.Context(), dek.Service, dek.Account)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, bytes.Clone(key.Expose()))
		}
	}
	for _, h := range []*host{alice, bob} { // each has a key by now, or gets one
		if _, err := h.RotateStorage(t.Context(), false, nil); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	if _, err := alice.RotateStorage(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	collect()
	dest := t.TempDir()
	if _, err := alice.ExportStorage(t.Context(), dest, false, nil, nil); err != nil {
		t.Fatal(err)
	}
	alice.stop()
	bob.stop()
	crossed := wire.seen()
	if len(crossed) < 1000 {
		t.Fatalf("only %d bytes were recorded", len(crossed))
	}
	looked := map[string][]byte{"the wire": crossed}
	for _, dir := range append(homes[:], dest) {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && e.Name() != "keystore.osks" {
				looked[path], err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range keys {
		for _, form := range [][]byte{key, []byte(hex.EncodeToString(key)), bytes.ToUpper([]byte(hex.EncodeToString(key))), []byte(base64.StdEncoding.EncodeToString(key)), []byte(base64.RawURLEncoding.EncodeToString(key))} {
			for name, raw := range looked {
				if bytes.Contains(raw, form) {
					t.Errorf("the storage key is in %s", name)
				}
			}
		}
	}
}
