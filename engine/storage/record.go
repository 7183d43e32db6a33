package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
)

// A record is a sealed file that others keep their lists in (decisions D7).
// Its name is its path below the root without .osec. One that cannot be read
// is told of in Status like a store, and is recovered like one.

// recordOf is the record that the owner names, with or without .osec; "" when
// it is none.
func recordOf(id ID) string {
	rel := strings.TrimSuffix(string(id), sealed.Ext)
	if place, seal, ok := placeOf(rel); !ok || !seal || path.Clean(rel) != rel || place == rel {
		return ""
	}
	return rel
}

// openRecord is the content of a sealed record, at most limit bytes. One that
// does not open with a key at hand is fault.StateCorrupt, one that names
// another key fault.StorageLocked.
func (s *Storage) openRecord(rel string, limit int64) ([]byte, error) {
	s.mu.Lock()
	keys, err := slices.Clone(s.keys), s.keyError()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	content, err := sealed.ReadFile(s.file(rel)+sealed.Ext, keys, sealed.Label{Purpose: sealed.JSON, Name: rel}, limit)
	switch {
	case errors.Is(err, sealed.ErrUnknownKey):
		err = fault.New(fault.StorageLocked, fmt.Errorf("%s: %w", rel+sealed.Ext, err))
	case sealed.Refused(err), errors.Is(err, disk.ErrUnsafe):
		err = fault.New(fault.StateCorrupt, fmt.Errorf("%s: %w", rel+sealed.Ext, err))
	}
	return content, err
}

// recordIssue is why a record cannot be read: it does not open, or what
// stands in it makes no sense to who reads it.
type recordIssue struct {
	kind   IssueKind
	opened bool
}

// noteRecord remembers why a record cannot be read. That there is no key is
// said of the key, and not of each record.
func (s *Storage) noteRecord(rel string, err error, opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || missing(err) || s.keyState != KeyReady && s.keyState != KeyFresh {
		delete(s.records, rel)
		return
	}
	kind := issueOf(err, IssueUnknown)
	switch {
	case errors.Is(err, fault.StateCorrupt):
		kind = IssueCorrupt
	case errors.Is(err, fault.StorageLocked):
		kind = IssueLocked
	}
	s.records[rel] = recordIssue{kind, opened}
}

// probeRecords finds out anew which records open. What stands in them is for
// who reads them.
func (s *Storage) probeRecords() error {
	list := slices.Clone(sealedPaths)
	for _, dir := range sealedDirs {
		entries, err := os.ReadDir(s.file(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if rel := recordOf(ID(dir + "/" + e.Name())); rel != "" {
				list = append(list, rel)
			}
		}
	}
	s.mu.Lock()
	maps.DeleteFunc(s.records, func(rel string, issue recordIssue) bool {
		return !issue.opened || !exists(s.file(rel)+sealed.Ext) && !exists(s.file(rel))
	})
	s.mu.Unlock()
	for _, rel := range list {
		if !exists(s.file(rel) + sealed.Ext) {
			continue
		}
		if _, err := s.openRecord(rel, maxDocument); err != nil {
			s.noteRecord(rel, err, false)
		}
	}
	return nil
}

// statusOfRecords lists the records that cannot be read, sorted. The caller
// holds s.mu.
func (s *Storage) statusOfRecords() []StoreStatus {
	var list []StoreStatus
	for rel, issue := range s.records {
		st := StoreStatus{ID: ID(rel), Path: rel, State: StateRefused, Issue: issue.kind, Next: "osaurus storage recover " + rel + " --reset"}
		if issue.kind == IssueLocked {
			st.Next = "bring back " + keystoreName + ", or: osaurus storage recover " + rel + " --reset"
		}
		if exists(s.file(rel) + sealed.Ext) {
			st.Path = rel + sealed.Ext
		}
		if info, err := os.Lstat(s.file(st.Path)); err == nil {
			st.Bytes = info.Size()
		}
		format, _ := formatOfFile(st.Path)
		st.Format = format
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b StoreStatus) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// setRecordAside moves a record that cannot be read into the quarantine, and
// a plain file of its name with it: neither may be taken for the other.
func (s *Storage) setRecordAside(ctx context.Context, rel, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.keyError(); err != nil {
		return err // it may be well
	}
	if _, noted := s.records[rel]; !noted {
		return fault.WithText(fault.Usage, rel+" can be read; nothing is set aside")
	}
	for _, file := range []string{rel + sealed.Ext, rel} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.moveAside("", file, reason); err != nil {
			return err
		}
	}
	delete(s.records, rel)
	return nil
}

// retryRecord opens a record again.
func (s *Storage) retryRecord(ctx context.Context, rel string) error {
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	if !exists(s.file(rel) + sealed.Ext) {
		return nil
	}
	_, err := s.openRecord(rel, maxDocument)
	if err != nil {
		s.noteRecord(rel, err, false)
	}
	return err
}
