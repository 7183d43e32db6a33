package storage

import (
	"context"
	"errors"
	"io"
	"slices"

	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// VerifyAll reads every database and every sealed file whole and returns the
// issues it found. Databases are closed meanwhile.
func (s *Storage) VerifyAll(ctx context.Context, progress func(Progress)) (issues []Issue, files []string, err error) {
	err = s.exclusive(ctx, "verify", func() error {
		ids, err := s.held()
		if err != nil {
			return err
		}
		sealedOnes, err := s.sealedFiles()
		if err != nil {
			return err
		}
		total := s.sizeOf(ids)
		for _, f := range sealedOnes {
			total += f.size
		}
		r := newReport(progress, total)
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, _, err := s.source(ctx, id)
			var issue Issue
			if errors.As(err, &issue) {
				s.note(id, err)
				issues = append(issues, issue)
			} else if err != nil {
				return err
			}
			r.finish(string(id), s.sizeOf([]ID{id}))
		}
		for _, f := range sealedOnes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !s.opens(f) {
				files = append(files, f.rel)
			}
			r.finish("files", f.size)
		}
		gone, err := s.goneBlobs(ctx, sealedOnes)
		for _, f := range gone {
			files = append(files, f.rel)
		}
		return err
	})
	return issues, files, err
}

// held lists the stores that are on disk or on record, sorted, but for those
// that hold nothing yet.
func (s *Storage) held() ([]ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.known()
	return slices.DeleteFunc(ids, func(id ID) bool {
		sit, err := s.look(id)
		nothing := sit.format == sqlcipher.Missing || sit.format == sqlcipher.Empty
		return err == nil && nothing && !sit.recorded && !sit.beside
	}), err
}

// goneBlobs lists the attachments that the chats mention and that are not
// among files. Nobody has the chats open; chats that do not open mention none.
func (s *Storage) goneBlobs(ctx context.Context, files []sealedFile) (gone []sealedFile, err error) {
	s.mu.Lock()
	f := sqlcipher.File{Path: s.file(ChatHistory.path())}
	format := s.detect(ChatHistory)
	if format == sqlcipher.Encrypted {
		f.Key = s.provingKey(ChatHistory)
	}
	s.mu.Unlock()
	if format != sqlcipher.Plaintext && !f.Encrypted() {
		return nil, nil
	}
	if s.shed(f) != nil {
		return nil, ctx.Err()
	}
	has, err := sqlcipher.Texts(ctx, f, "SELECT name FROM pragma_table_info('turns') WHERE name = 'attachments'")
	if err != nil || len(has) == 0 {
		return nil, ctx.Err() // the database is told of by itself
	}
	there := map[string]bool{}
	for _, f := range files {
		there[f.rel] = true
	}
	turns, err := sqlcipher.Texts(ctx, f, `SELECT attachments FROM turns WHERE instr(attachments, '_ref"') > 0`)
	for _, attachments := range turns {
		for _, h := range blob.Mentioned(attachments) {
			rel := blobsDir + "/" + string(h) + sealed.Ext
			if !there[rel] {
				there[rel] = true
				gone = append(gone, sealedFile{rel: rel, label: h.Label()})
			}
		}
	}
	if err != nil {
		return gone, ctx.Err()
	}
	return gone, nil
}

// opens reports whether a key at hand opens a sealed file, and an attachment
// has the content of its name.
func (s *Storage) opens(f sealedFile) bool {
	s.mu.Lock()
	keys := s.keys
	s.mu.Unlock()
	if f.label.Purpose == sealed.Blob {
		return s.Blobs().Verify(blob.Hash(f.label.Name)) == nil
	}
	_, _, err := sealed.CopyFile(io.Discard, s.file(f.rel), keys, f.label)
	return err == nil
}
