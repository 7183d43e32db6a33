package storage

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// remains are what older hosts keep unencrypted and nothing here reads
// (decisions D7): an index made of memories, and originals from before they
// were encrypted; and settings. The owner decides what becomes of them.
var remains = []string{".pre-encryption-backup", "memory/vectura"}

// olderSettings are the settings that an older host left, set aside at a start.
const olderSettings = "config/*.json.older*"

// remaining lists the remains that are there, sorted.
func (s *Storage) remaining() []string {
	all, _ := fs.Glob(os.DirFS(s.root), olderSettings) //nolint:errcheck // the pattern is ours
	for _, path := range remains {
		if exists(s.file(path)) {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	return all
}

const keptFile = ".storage-kept.json"

// Remains is one of them, with the bytes of its files.
type Remains struct {
	Path  string `json:"path"` // below the home
	Bytes int64  `json:"bytes"`
	Kept  bool   `json:"kept"` // the owner said so
}

type keptRecord struct {
	V    int      `json:"v"`
	Kept []string `json:"kept"`
}

// Remains lists what an older host left unencrypted.
func (s *Storage) Remains() ([]Remains, error) {
	kept := s.kept()
	all := []Remains{}
	for _, path := range s.remaining() {
		r := Remains{Path: path, Kept: slices.Contains(kept, path)}
		err := filepath.WalkDir(s.file(path), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				r.Bytes += info.Size()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// kept reads what the owner wants to keep. A file that does not parse only
// has it asked again.
func (s *Storage) kept() []string {
	text, err := readState(s.file(keptFile))
	var r keptRecord
	if err != nil || canonjson.Unmarshal(text, &r) != nil {
		return nil
	}
	return r.Kept
}

// Settle deletes what an older host left at path, or notes that it is kept.
func (s *Storage) Settle(ctx context.Context, path string, keep bool) error {
	if !slices.Contains(s.remaining(), path) {
		return fault.WithText(fault.Usage, "an older host left nothing of that name")
	}
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	if !keep {
		s.log("storage.remains_deleted", slog.String("path", path))
		return errors.Join(s.disk.RemoveAll(s.file(path)), s.disk.SyncDir(filepath.Dir(s.file(path))))
	}
	kept := append(s.kept(), path)
	slices.Sort(kept)
	text, err := canonjson.Marshal(keptRecord{1, slices.Compact(kept)})
	if err != nil {
		return err
	}
	return s.disk.ReplaceBytes(s.file(keptFile), text)
}
