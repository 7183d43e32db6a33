package storage

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRemains: what an older host left is told until it is deleted or kept;
// nothing else can be deleted this way.
func TestRemains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	for _, path := range []string{"memory/vectura/A/index", ".pre-encryption-backup/json/x"} {
		must(t, os.MkdirAll(filepath.Dir(s.file(path)), 0o700))
		must(t, os.WriteFile(s.file(path), []byte("12345"), 0o600))
	}
	must(t, os.Symlink(w.t.TempDir(), s.file("memory/vectura/link")))
	must(t, os.MkdirAll(s.file("config"), 0o700))
	for _, path := range []string{"config/server.json", "config/server.json.older"} {
		must(t, os.WriteFile(s.file(path), []byte("123"), 0o600))
	}
	list, err := s.Remains()
	must(t, err)
	if len(list) != 3 || list[1].Path != "config/server.json.older" || list[1].Bytes != 3 {
		t.Fatalf("%+v", list)
	}
	must(t, s.Settle(t.Context(), "config/server.json.older", false))
	list, err = s.Remains()
	must(t, err)
	if len(list) != 2 || list[0].Bytes != 5 || list[0].Kept || list[1].Path != "memory/vectura" {
		t.Fatalf("%+v", list)
	}
	must(t, s.Settle(t.Context(), ".pre-encryption-backup", true))
	must(t, s.Settle(t.Context(), "memory/vectura", false))
	for _, path := range []string{"memory/vectura", "memory", "chat-history", "config/server.json", "", "../x", "/etc"} {
		if s.Settle(t.Context(), path, false) == nil {
			t.Errorf("%q was deleted", path)
		}
	}
	list, err = w.open().Remains()
	if err != nil || len(list) != 1 || !list[0].Kept || exists(s.file("memory/vectura")) || !exists(s.file("memory")) {
		t.Errorf("%+v %v", list, err)
	}
	must(t, os.WriteFile(s.file(keptFile), []byte("{"), 0o600))
	if list, err := s.Remains(); err != nil || list[0].Kept {
		t.Errorf("%+v %v", list, err)
	}
}
