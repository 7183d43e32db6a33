package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"osaurus/engine/atomicfile"
)

// What lies beside the destination while it is fetched.
const (
	partialSuffix = ".partial"
	metaSuffix    = ".partial-meta.json"
)

// resume is what is known of a partial file; with an ETag it can go on.
type resume struct {
	SourceURL  string `json:"sourceURL"`
	ETag       string `json:"etag"`
	TotalBytes int64  `json:"totalBytes"` // -1 when the source did not say
}

// maxMeta bounds a resume record in bytes.
const maxMeta = 64 << 10

// Download fetches a pinned file to dest, source after source. A source that
// cannot be reached or breaks off gives way to the next, and what it sent is
// kept to go on from. A source that sends something else ends it: the partial
// file goes, and no other source is asked. dest is touched only by a match.
func (n Network) Download(ctx context.Context, pin Pin, dest string) error {
	var failed []error
	for _, source := range pin.URLs {
		err := n.downloadFrom(ctx, pin, source, dest)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrIntegrity) {
			return errors.Join(err, dropPartial(dest))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = append(failed, err)
	}
	return fmt.Errorf("%s: no source answered: %w", pin.Name, errors.Join(failed...))
}

func dropPartial(dest string) error {
	return errors.Join(atomicfile.Remove(dest+partialSuffix), atomicfile.Remove(dest+metaSuffix))
}

func (n Network) downloadFrom(ctx context.Context, pin Pin, source, dest string) error {
	have, offset := readResume(dest, source)
	if offset == 0 || offset != have.TotalBytes {
		if err := n.fetch(ctx, pin, source, dest, have, offset); err != nil {
			return err
		}
	}
	if err := VerifySHA256(dest+partialSuffix, pin.SHA256, pin.MaxBytes); err != nil {
		return fmt.Errorf("%s: %w", pin.Name, err)
	}
	if err := os.Rename(dest+partialSuffix, dest); err != nil {
		return err
	}
	return atomicfile.Remove(dest + metaSuffix) // fsyncs the folder too
}

// readResume returns where to go on, 0 for the beginning.
func readResume(dest, source string) (resume, int64) {
	var r resume
	f, err := openRegular(dest + metaSuffix)
	if err != nil {
		return resume{}, 0
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxMeta))
	_ = f.Close() // only read
	if err != nil || json.Unmarshal(raw, &r) != nil || r.SourceURL != source || !strong(r.ETag) {
		return resume{}, 0
	}
	info, err := os.Lstat(dest + partialSuffix)
	if err != nil || !info.Mode().IsRegular() {
		return resume{}, 0
	}
	return r, info.Size()
}

// strong says whether an ETag promises the same bytes (RFC 9110, 8.8.1).
func strong(etag string) bool { return len(etag) >= 2 && strings.HasPrefix(etag, `"`) }

// fetch appends to the partial file, or begins it anew.
func (n Network) fetch(ctx context.Context, pin Pin, source, dest string, have resume, offset int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		req.Header.Set("If-Range", have.ETag)
	}
	client := http.Client{Transport: n.transport(), CheckRedirect: staysSecure}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // only read
	switch {
	case res.StatusCode == http.StatusPartialContent && offset > 0:
		if !continues(res.Header.Get("Content-Range"), offset) {
			return errors.Join(fmt.Errorf("%s answered another range", req.URL.Host), dropPartial(dest))
		}
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(fmt.Errorf("%s has no byte %d", req.URL.Host, offset), dropPartial(dest))
	case res.StatusCode/100 == 2:
		offset = 0
	default:
		return fmt.Errorf("%s answered %s", req.URL.Host, res.Status)
	}
	return n.receive(pin, source, dest, res, offset)
}

func (n Network) receive(pin Pin, source, dest string, res *http.Response, offset int64) error {
	total := int64(-1)
	if res.ContentLength >= 0 {
		total = offset + res.ContentLength
	}
	if total > pin.MaxBytes {
		return refuse(pin.Name, "it exceeds size cap of %d bytes", pin.MaxBytes)
	}
	if err := n.space(filepath.Dir(dest), max(total-offset, 0)); err != nil {
		return err
	}
	raw, err := json.Marshal(resume{source, res.Header.Get("ETag"), total})
	if err != nil {
		return err
	}
	f, err := openPartial(dest, offset)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(dest+metaSuffix, raw); err != nil {
		return errors.Join(err, f.Close())
	}
	w := &counted{w: f, done: offset, total: total, report: n.Progress}
	_, err = io.Copy(w, io.LimitReader(res.Body, pin.MaxBytes-offset+1))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if w.done > pin.MaxBytes {
		return refuse(pin.Name, "it exceeds size cap of %d bytes", pin.MaxBytes)
	}
	if total >= 0 && w.done != total {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// openPartial opens the partial file at offset, never through a link.
func openPartial(dest string, offset int64) (*os.File, error) {
	path := dest + partialSuffix
	if offset == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, atomicfile.Mode)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Size() != offset {
		return nil, errors.Join(fmt.Errorf("%s changed meanwhile", path), err, f.Close())
	}
	return f, nil
}

// continues reads "bytes <first>-<last>/<total>".
func continues(contentRange string, offset int64) bool {
	rest, ok := strings.CutPrefix(contentRange, "bytes ")
	first, _, dash := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return ok && dash && err == nil && n == offset
}

// staysSecure follows redirects, but none from https to http.
func staysSecure(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%s redirects away from https", via[0].URL.Host)
	}
	return nil
}

type counted struct {
	w           io.Writer
	done, total int64
	report      func(done, total int64)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.done += int64(n)
	if c.report != nil {
		c.report(c.done, c.total)
	}
	return n, err
}
