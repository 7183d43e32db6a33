package artifact

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"

	"osaurus/engine/sandbox/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPlatform = "linux/amd64"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails unless err is an ErrIntegrity that says text.
func wants(t testing.TB, err error, text string) {
	t.Helper()
	if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want an integrity error that says %q", err, text)
	}
}

func entries(names ...string) []image.Entry {
	var all []image.Entry
	for _, n := range names {
		all = append(all, image.Entry{Name: n, Mode: 0o644, Body: []byte(strings.Repeat("content of "+n+"\n", 200))})
	}
	return all
}

// built is an image of two layers in a layout, and its pin.
func built(t testing.TB) (Layout, Pin) {
	t.Helper()
	ix, err := image.Build(testPlatform, entries("a", "b"), entries("c"))
	must(t, err)
	dir := filepath.Join(t.TempDir(), "image")
	must(t, ix.Write(dir))
	return Layout{Dir: dir}, pinOf(ix.Digest, "registry.invalid/sandbox")
}

func pinOf(digest, repository string) Pin {
	return Pin{
		Name: SandboxImage, Platform: testPlatform, Kind: Index,
		Reference: repository + "@sha256:" + digest, SHA256: digest, MaxBytes: 1 << 20, Note: "test",
	}
}

// mirror is a registry in this process behind a proxy that tampers.
type mirror struct {
	*httptest.Server
	mu     sync.Mutex
	tamper func(*http.Request, *httptest.ResponseRecorder) // changes one answer
	asked  []string
}

func newMirror(t testing.TB) *mirror {
	t.Helper()
	m := &mirror{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		m.mu.Lock()
		tamper := m.tamper
		m.asked = append(m.asked, r.Method+" "+r.URL.Path)
		m.mu.Unlock()
		if tamper != nil && r.Method == http.MethodGet {
			tamper(r, rec)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		if rec.Header().Get("Content-Length") == "" {
			_ = http.NewResponseController(w).Flush() // chunked
		}
		_, _ = io.Copy(w, rec.Body)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) set(tamper func(*http.Request, *httptest.ResponseRecorder)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tamper, m.asked = tamper, nil
}

func (m *mirror) repository(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(m.URL)
	must(t, err)
	return u.Host + "/sandbox"
}

func (m *mirror) push(t testing.TB, ix v1.ImageIndex) {
	t.Helper()
	tag, err := name.NewTag(m.repository(t)+":latest", name.Insecure)
	must(t, err)
	must(t, remote.WriteIndex(tag, ix, remote.WithTransport(plainTransport(t))))
}

func plainTransport(t testing.TB) http.RoundTripper {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// pushed is a built image in a registry, its pin, and the blobs it has.
func pushed(t testing.TB) (*mirror, Pin, Layout) {
	t.Helper()
	l, pin := built(t)
	p, err := layout.FromPath(l.Dir)
	must(t, err)
	root, err := p.ImageIndex()
	must(t, err)
	ix, err := root.ImageIndex(v1.Hash{Algorithm: "sha256", Hex: pin.SHA256})
	must(t, err)
	m := newMirror(t)
	m.push(t, ix)
	return m, pinOf(pin.SHA256, m.repository(t)), l
}

func loopback(t testing.TB) Network {
	t.Helper()
	return Network{Transport: plainTransport(t), Insecure: true}
}

// randomIndex is another valid index with an image for the same platform.
func randomIndex(t testing.TB) v1.ImageIndex {
	t.Helper()
	img, err := random.Image(512, 1)
	must(t, err)
	return mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
}

// tree lists the blobs of a layout, and whatever else lies there.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		found[rel] = string(raw)
		return err
	})
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	return found
}

func unpackTo(t testing.TB, l Layout, pin Pin, limits Limits) (string, error) {
	t.Helper()
	img, err := l.Verify(pin)
	if err != nil {
		return "", err
	}
	dest := filepath.Join(t.TempDir(), "root")
	return dest, img.Unpack(context.Background(), dest, limits)
}
