package artifact

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// part names a blob of the built image by its place in it.
func part(t testing.TB, l Layout, pin Pin, which string) string {
	t.Helper()
	img, err := l.Verify(pin)
	must(t, err)
	raw, err := os.ReadFile(l.Blob(img.Digest))
	must(t, err)
	_, config, err := parseManifest(raw)
	must(t, err)
	switch which {
	case "index":
		return pin.SHA256
	case "manifest":
		return img.Digest
	case "config":
		return config
	case "layer":
		return img.Layers[1].Digest
	}
	t.Fatalf("no part %q", which)
	return ""
}

func flip(b []byte) []byte {
	out := bytes.Clone(b)
	out[len(out)/2] ^= 1
	return out
}

// TestRegistryTampering is the matrix of what a mirror can do to each part.
// Nothing it sent remains, and what was there before stays as it was.
func TestRegistryTampering(t *testing.T) {
	t.Parallel()
	fixed := func(b []byte, h http.Header) []byte {
		h.Set("Content-Length", strconv.Itoa(len(b)))
		return b
	}
	chunked := func(b []byte, h http.Header) []byte { h.Del("Content-Length"); return b }
	damage := map[string]func([]byte, http.Header) []byte{
		"bit flipped":      func(b []byte, h http.Header) []byte { return fixed(flip(b), h) },
		"shorter":          func(b []byte, h http.Header) []byte { return fixed(b[:len(b)-7], h) },
		"longer":           func(b []byte, h http.Header) []byte { return fixed(append(bytes.Clone(b), "more"...), h) },
		"shorter, chunked": func(b []byte, h http.Header) []byte { return chunked(b[:len(b)-7], h) },
		"swapped, chunked": func(b []byte, h http.Header) []byte { return chunked([]byte(`{"swapped":true}`), h) },
		"swapped":          func(b []byte, h http.Header) []byte { return fixed([]byte(`{"swapped":true}`), h) },
		"empty":            func(_ []byte, h http.Header) []byte { return fixed(nil, h) },
		"flipped, chunked": func(b []byte, h http.Header) []byte { return chunked(flip(b), h) },
	}
	for _, which := range []string{"index", "manifest", "config", "layer"} {
		for how, change := range damage {
			t.Run(which+" "+how, func(t *testing.T) {
				t.Parallel()
				m, pin, source := pushed(t)
				sum := part(t, source, pin, which)
				good := part(t, source, pin, "config")
				into := Layout{Dir: filepath.Join(t.TempDir(), "images")}
				must(t, into.create())
				if which != "config" { // something good is there already
					raw, err := os.ReadFile(source.Blob(good))
					must(t, err)
					must(t, os.WriteFile(into.Blob(good), raw, 0o600))
				}
				before := tree(t, into.Dir)
				m.set(func(r *http.Request, rec *httptest.ResponseRecorder) {
					if strings.HasSuffix(r.URL.Path, sum) {
						rec.Body = bytes.NewBuffer(change(rec.Body.Bytes(), rec.Header()))
						rec.Header().Del("Docker-Content-Digest")
					}
				})
				err := loopback(t).Pull(context.Background(), pin, into)
				wants(t, err, "")
				after := tree(t, into.Dir)
				for name, was := range before {
					if after[name] != was {
						t.Errorf("%s was changed", name)
					}
				}
				for name := range after {
					if strings.Contains(name, sum) || strings.Contains(name, ".incoming-") {
						t.Errorf("%s was left behind", name)
					}
				}
				if _, err := into.Verify(pin); err == nil {
					t.Error("the layout verifies")
				}
			})
		}
	}
}

func TestIndexReplacedByAnotherValidOne(t *testing.T) {
	t.Parallel()
	m, pin, _ := pushed(t)
	other, err := randomIndex(t).RawManifest()
	must(t, err)
	m.set(func(r *http.Request, rec *httptest.ResponseRecorder) {
		if strings.HasSuffix(r.URL.Path, pin.SHA256) {
			rec.Body = bytes.NewBuffer(other)
			rec.Header().Set("Content-Length", strconv.Itoa(len(other)))
		}
	})
	wants(t, loopback(t).Pull(context.Background(), pin, Layout{Dir: t.TempDir()}), "index")
}

func TestTagMovedDoesNotMatter(t *testing.T) {
	t.Parallel()
	m, pin, source := pushed(t)
	m.push(t, randomIndex(t)) // :latest names another image now
	into := Layout{Dir: filepath.Join(t.TempDir(), "images")}
	must(t, loopback(t).Pull(context.Background(), pin, into))
	img, err := into.Verify(pin)
	must(t, err)
	want, err := source.Verify(pin)
	must(t, err)
	if img.Digest != want.Digest {
		t.Fatal("another image was pulled")
	}
}

func TestPinThatNamesAManifestIsRefused(t *testing.T) {
	t.Parallel()
	m, pin, source := pushed(t)
	single := pinOf(part(t, source, pin, "manifest"), m.repository(t))
	if err := loopback(t).Pull(context.Background(), single, Layout{Dir: t.TempDir()}); !errors.Is(err, ErrPin) {
		t.Fatalf("got %v, want ErrPin", err)
	}
	if _, err := source.Verify(single); !errors.Is(err, ErrPin) {
		t.Fatalf("on disk: got %v, want ErrPin", err)
	}
	absent := pin
	absent.Platform = "linux/arm64"
	if _, err := source.Verify(absent); !errors.Is(err, ErrPin) {
		t.Fatalf("a platform that is not there: got %v, want ErrPin", err)
	}
}

func TestNetworkErrorsAreNoIntegrityErrors(t *testing.T) {
	t.Parallel()
	m, pin, _ := pushed(t)
	for name, tamper := range map[string]func(*httptest.ResponseRecorder){
		"not found": func(rec *httptest.ResponseRecorder) { rec.Code = http.StatusNotFound },
		"forbidden": func(rec *httptest.ResponseRecorder) { rec.Code = http.StatusForbidden },
	} {
		m.set(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				tamper(rec)
			}
		})
		err := loopback(t).Pull(context.Background(), pin, Layout{Dir: t.TempDir()})
		if err == nil || errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	m.Close()
	if err := loopback(t).Pull(context.Background(), pin, Layout{Dir: t.TempDir()}); err == nil || errors.Is(err, ErrIntegrity) {
		t.Errorf("nobody there: got %v", err)
	}
}

func TestPullKeepsBlobsThatAreThere(t *testing.T) {
	t.Parallel()
	m, pin, source := pushed(t)
	into := Layout{Dir: filepath.Join(t.TempDir(), "images")}
	must(t, loopback(t).Pull(context.Background(), pin, into))
	layer := part(t, source, pin, "layer")
	must(t, os.Remove(into.Blob(layer)))
	m.set(nil)
	must(t, loopback(t).Pull(context.Background(), pin, into))
	for _, asked := range m.asked {
		if strings.Contains(asked, "/blobs/") && !strings.HasSuffix(asked, layer) && !strings.HasSuffix(asked, part(t, source, pin, "config")) {
			t.Errorf("fetched again: %s", asked)
		}
	}
	// A damaged blob is replaced by a pull, and by nothing else.
	must(t, os.WriteFile(into.Blob(layer), []byte("damaged"), 0o600))
	if _, err := into.Verify(pin); !errors.Is(err, ErrIntegrity) {
		t.Fatal(err)
	}
	must(t, loopback(t).Pull(context.Background(), pin, into))
	_, err := into.Verify(pin)
	must(t, err)
}

// TestDiskTampering is the matrix of what can happen to a layout on disk: none
// of it is seen by the library that wrote it. What was good is still there.
func TestDiskTampering(t *testing.T) {
	t.Parallel()
	change := map[string]func(t *testing.T, path string){
		"bit flipped": func(t *testing.T, path string) {
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, flip(raw), 0o600))
		},
		"shorter": func(t *testing.T, path string) {
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, raw[:len(raw)-1], 0o600))
		},
		"longer": func(t *testing.T, path string) {
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, append(raw, 0), 0o600))
		},
		"empty": func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) },
		"link": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+"-moved"))
			must(t, os.Symlink(path+"-moved", path))
		},
		"folder": func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		},
	}
	for _, which := range []string{"index", "manifest", "config", "layer"} {
		for how, apply := range change {
			t.Run(which+" "+how, func(t *testing.T) {
				t.Parallel()
				l, pin := built(t)
				l.Checked = &Checked{}
				_, err := l.Verify(pin) // good, and remembered
				must(t, err)
				sum := part(t, l, pin, which)
				apply(t, l.Blob(sum))
				before := tree(t, filepath.Join(l.Dir, "blobs"))
				_, err = unpackTo(t, l, pin, DefaultLimits)
				wants(t, err, "")
				if after := tree(t, filepath.Join(l.Dir, "blobs")); len(after) != len(before) {
					t.Errorf("%d files became %d", len(before), len(after))
				}
			})
		}
		t.Run(which+" gone", func(t *testing.T) {
			t.Parallel()
			l, pin := built(t)
			must(t, os.Remove(l.Blob(part(t, l, pin, which))))
			if _, err := l.Verify(pin); !errors.Is(err, ErrAbsent) {
				t.Fatalf("got %v, want ErrAbsent", err)
			}
		})
	}
}

// TestLayerReplacedBetweenVerifyAndUnpack changes a layer after the check.
func TestLayerReplacedBetweenVerifyAndUnpack(t *testing.T) {
	t.Parallel()
	l, pin := built(t)
	img, err := l.Verify(pin)
	must(t, err)
	raw, err := os.ReadFile(l.Blob(img.Layers[0].Digest))
	must(t, err)
	evil := bytes.Replace(raw, []byte("content of a"), []byte("content of X"), 1)
	must(t, os.WriteFile(l.Blob(img.Layers[0].Digest), evil, 0o600))
	dest := filepath.Join(t.TempDir(), "root")
	wants(t, img.Unpack(context.Background(), dest, DefaultLimits), "SHA-256 mismatch")
	if _, err := os.Lstat(dest); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("something was left unpacked")
	}
}

func TestIndexFileIsNotBelieved(t *testing.T) {
	t.Parallel()
	l, pin := built(t)
	must(t, os.WriteFile(filepath.Join(l.Dir, "index.json"), []byte("{}"), 0o600))
	_, err := l.Verify(pin)
	must(t, err)
}

func TestImageCap(t *testing.T) {
	t.Parallel()
	l, pin := built(t)
	img, err := l.Verify(pin)
	must(t, err)
	size := int64(0)
	for _, sum := range []string{pin.SHA256, img.Digest} {
		info, err := os.Stat(l.Blob(sum))
		must(t, err)
		size += info.Size()
	}
	for _, layer := range img.Layers {
		size += layer.Size
	}
	pin.MaxBytes = size
	_, err = l.Verify(pin)
	must(t, err)
	pin.MaxBytes--
	_, err = l.Verify(pin)
	wants(t, err, "exceeds size cap")
}

func TestPullNeedsSpace(t *testing.T) {
	t.Parallel()
	_, pin, source := pushed(t)
	img, err := source.Verify(pin)
	must(t, err)
	need := img.Layers[0].Size + img.Layers[1].Size + margin
	n := loopback(t)
	for _, free := range []int64{need, need - 1} {
		n.Free = func(string) (int64, error) { return free, nil }
		err := n.Pull(context.Background(), pin, Layout{Dir: filepath.Join(t.TempDir(), "images")})
		if enough := free >= need; enough != (err == nil) {
			t.Errorf("%d bytes free: %v", free, err)
		}
	}
}
