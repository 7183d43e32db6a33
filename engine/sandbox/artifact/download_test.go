package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var kernelBytes = bytes.Repeat([]byte("0123456789abcdef"), 4096)

// source is a server of one file.
type source struct {
	*httptest.Server
	heads []http.Header
}

func newSource(t testing.TB, handle func(n int, w http.ResponseWriter, r *http.Request)) *source {
	t.Helper()
	s := &source{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.heads = append(s.heads, r.Header.Clone())
		handle(len(s.heads), w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func serveFile(content []byte, etag string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content)
	}
}

// breaksOff sends half and hangs up, then serves ranges.
func breaksOff(etag string) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if n == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(kernelBytes)))
			_, _ = w.Write(kernelBytes[:len(kernelBytes)/2])
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(kernelBytes))
	}
}

func filePin(urls ...string) Pin {
	return Pin{Name: Kernel, Platform: testPlatform, Kind: File, URLs: urls, SHA256: sumOf(kernelBytes), MaxBytes: int64(len(kernelBytes)), Note: "test"}
}

func download(t testing.TB, pin Pin, dest string) error {
	t.Helper()
	return loopback(t).Download(context.Background(), pin, dest)
}

func gone(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there", filepath.Base(p))
		}
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "vmlinux")
	s := newSource(t, serveFile(kernelBytes, `"v1"`))
	must(t, download(t, filePin(s.URL), dest))
	must(t, VerifySHA256(dest, sumOf(kernelBytes), MaxFile))
	gone(t, dest+partialSuffix, dest+metaSuffix)
	if h := s.heads[0]; h.Get("Range")+h.Get("If-Range") != "" {
		t.Error("a fresh download asked for a range")
	}
	if info, err := os.Stat(dest); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	for etag, resumes := range map[string]bool{`"v1"`: true, `W/"v1"`: false, "": false} {
		dest := filepath.Join(t.TempDir(), "vmlinux")
		s := newSource(t, breaksOff(etag))
		if err := download(t, filePin(s.URL), dest); err == nil || errors.Is(err, ErrIntegrity) {
			t.Fatalf("half a file: %v", err)
		}
		if info, err := os.Stat(dest + partialSuffix); err != nil || info.Size() != int64(len(kernelBytes)/2) {
			t.Fatalf("the half was not kept: %v", err)
		}
		gone(t, dest)
		must(t, download(t, filePin(s.URL), dest))
		h := s.heads[1]
		if got := h.Get("Range") == fmt.Sprintf("bytes=%d-", len(kernelBytes)/2) && h.Get("If-Range") == etag; got != resumes {
			t.Errorf("ETag %q: Range %q If-Range %q", etag, h.Get("Range"), h.Get("If-Range"))
		}
		gone(t, dest+partialSuffix, dest+metaSuffix)
	}
}

func TestDownloadStartsAnew(t *testing.T) {
	t.Parallel()
	restart := map[string]func(n int, w http.ResponseWriter, r *http.Request){
		"the file changed": func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				breaksOff(`"v0"`)(n, w, r)
				return
			}
			serveFile(kernelBytes, `"v1"`)(n, w, r)
		},
		"no ranges": func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				breaksOff(`"v0"`)(n, w, r)
				return
			}
			serveFile(kernelBytes, "")(n, w, r)
		},
	}
	for name, handle := range restart {
		dest := filepath.Join(t.TempDir(), "vmlinux")
		s := newSource(t, handle)
		_ = download(t, filePin(s.URL), dest)
		if err := download(t, filePin(s.URL), dest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another source knows nothing of the first one's half.
	dest := filepath.Join(t.TempDir(), "vmlinux")
	first, second := newSource(t, breaksOff(`"v1"`)), newSource(t, serveFile(kernelBytes, `"v1"`))
	must(t, download(t, filePin(first.URL, second.URL), dest))
	if second.heads[0].Get("Range") != "" {
		t.Error("the second source was asked to go on with the first one's bytes")
	}
}

func TestDownloadRangesThatAreNot(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter){
		"another range": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		},
		"no range named": func(w http.ResponseWriter) { w.WriteHeader(http.StatusPartialContent) },
		"past the end":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) },
	} {
		dest := filepath.Join(t.TempDir(), "vmlinux")
		s := newSource(t, func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				breaksOff(`"v1"`)(n, w, r)
			case 2:
				answer(w)
			default:
				serveFile(kernelBytes, `"v1"`)(n, w, r)
			}
		})
		_ = download(t, filePin(s.URL), dest)
		if err := download(t, filePin(s.URL), dest); err == nil || errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: %v", name, err)
		}
		gone(t, dest+partialSuffix, dest+metaSuffix)
		must(t, download(t, filePin(s.URL), dest))
	}
}

// TestDownloadFailsClosed tries each way a file can differ: no other source is
// asked, the partial file goes, and the file that was there stays.
func TestDownloadFailsClosed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle func(int, http.ResponseWriter, *http.Request)
		text   string
	}{
		"bit flipped": {serveFile(flip(kernelBytes), `"v1"`), "SHA-256 mismatch"},
		"shorter":     {serveFile(kernelBytes[1:], `"v1"`), "SHA-256 mismatch"},
		"empty":       {serveFile(nil, ""), "SHA-256 mismatch"},
		"too long, declared": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(kernelBytes)+1))
			_, _ = w.Write(append(bytes.Clone(kernelBytes), 'x'))
		}, "exceeds size cap"},
		"too long, chunked": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(append(bytes.Clone(kernelBytes), 'x'))
		}, "exceeds size cap"},
	} {
		dest := write(t, filepath.Join(t.TempDir(), "vmlinux"), "what was there")
		bad := newSource(t, c.handle)
		good := newSource(t, serveFile(kernelBytes, ""))
		wants(t, download(t, filePin(bad.URL, good.URL), dest), c.text)
		if len(good.heads) != 0 {
			t.Errorf("%s: another source was asked", name)
		}
		gone(t, dest+partialSuffix, dest+metaSuffix)
		if raw, _ := os.ReadFile(dest); string(raw) != "what was there" {
			t.Errorf("%s: the file that was there was changed", name)
		}
	}
}

// TestDownloadPoisonedHalf resumes over bytes that somebody changed on disk.
func TestDownloadPoisonedHalf(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "vmlinux")
	s := newSource(t, breaksOff(`"v1"`))
	_ = download(t, filePin(s.URL), dest)
	write(t, dest+partialSuffix, strings.Repeat("x", len(kernelBytes)/2))
	wants(t, download(t, filePin(s.URL), dest), "SHA-256 mismatch")
	gone(t, dest, dest+partialSuffix, dest+metaSuffix)
}

func TestDownloadNetworkErrorsGoOn(t *testing.T) {
	t.Parallel()
	closed := newSource(t, serveFile(nil, ""))
	closed.Close()
	missing := newSource(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	good := newSource(t, serveFile(kernelBytes, ""))
	dest := filepath.Join(t.TempDir(), "vmlinux")
	must(t, download(t, filePin(closed.URL, missing.URL, good.URL), dest))
	err := download(t, filePin(closed.URL, missing.URL), dest)
	if err == nil || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "404") {
		t.Errorf("no source: %v", err)
	}
}

func TestDownloadNeedsSpace(t *testing.T) {
	t.Parallel()
	s := newSource(t, serveFile(kernelBytes, ""))
	n := loopback(t)
	for _, spare := range []int64{0, -1} {
		n.Free = func(string) (int64, error) { return int64(len(kernelBytes)) + margin + spare, nil }
		err := n.Download(context.Background(), filePin(s.URL), filepath.Join(t.TempDir(), "f"))
		if (err == nil) != (spare == 0) {
			t.Errorf("%d bytes to spare: %v", spare, err)
		}
	}
}

func TestDownloadFinishesWhatIsComplete(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "vmlinux")
	s := newSource(t, serveFile(kernelBytes, ""))
	write(t, dest+partialSuffix, string(kernelBytes))
	write(t, dest+metaSuffix, fmt.Sprintf(`{"sourceURL":%q,"etag":"\"v1\"","totalBytes":%d}`, s.URL, len(kernelBytes)))
	must(t, download(t, filePin(s.URL), dest))
	if len(s.heads) != 0 {
		t.Error("it was fetched again")
	}
}

func TestDownloadThroughNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := write(t, filepath.Join(dir, "outside"), "good")
	dest := filepath.Join(dir, "vmlinux")
	must(t, os.Symlink(outside, dest+partialSuffix))
	s := newSource(t, serveFile(kernelBytes, ""))
	must(t, download(t, filePin(s.URL), dest))
	if raw, _ := os.ReadFile(outside); string(raw) != "good" {
		t.Error("a file outside was written")
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	good := newSource(t, serveFile(kernelBytes, ""))
	hop := newSource(t, func(_ int, w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, good.URL, http.StatusFound) })
	must(t, download(t, filePin(hop.URL), filepath.Join(t.TempDir(), "f")))
	secure := httptest.NewTLSServer(http.RedirectHandler(good.URL, http.StatusFound))
	t.Cleanup(secure.Close)
	n := Network{Transport: secure.Client().Transport}
	if err := n.Download(context.Background(), filePin(secure.URL), filepath.Join(t.TempDir(), "f")); err == nil || !strings.Contains(err.Error(), "away from https") {
		t.Errorf("got %v", err)
	}
	secure.Client().CloseIdleConnections()
}
