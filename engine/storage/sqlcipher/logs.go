package sqlcipher

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"strings"

	"osaurus/engine/storage/disk"
)

// ErrForeignLog says that a log beside a database holds pages of another one,
// or of another key. SQLite would write them over the database, whose pages it
// does not compare with anything.
var ErrForeignLog = errors.New("sqlcipher: a log beside the file belongs to another database")

// The layout of SQLite's two logs (its file format, sections 3 and 4).
const (
	walMagic       = 0x377f0682 // the lowest bit: checksums over big-endian words
	walHeaderSize  = 32
	walFrameHeader = 24

	journalMagic     = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
	journalHead      = 28 // of a sector
	journalLeast     = 512
	journalFrame     = 8 // a page's number before it, its checksum behind
	journalUncounted = 1<<32 - 1
	journalSumStep   = 200

	minPageSize, maxPageSize     = 512, 65536
	minSectorSize, maxSectorSize = 32, 65536
)

// ForeignLogs names the logs beside f that hold pages which are not f's. It is
// ErrKey if neither f's first page nor a log is proved by its key: then nobody
// knows whose the log is. It must not be called while this process has f open.
func ForeignLogs(f File) ([]string, error) {
	db, info, err := disk.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // read only
	if info.Size() == 1 {
		return nil, ErrDamaged // to SQLite the same as none, so it would begin anew
	}
	var own prover
	var foreign []string
	proved := false
	for _, path := range Sidecars(f.Path) {
		check := walState
		switch {
		case strings.HasSuffix(path, "-shm"): // made anew from the log
			if _, err := disk.Regular(path); errors.Is(err, disk.ErrUnsafe) {
				return nil, err
			}
			continue
		case strings.HasSuffix(path, "-journal"):
			check = journalState
		}
		log, its, err := disk.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if own.size == 0 {
			if own, err = newProver(f, db, info.Size()); err != nil {
				return nil, errors.Join(err, log.Close())
			}
		}
		state, err := check(logFile{log, its.Size()}, &own)
		if err := errors.Join(err, log.Close()); err != nil {
			return nil, err
		}
		proved = proved || state == logOwn
		if state == logForeign {
			foreign = append(foreign, path)
		}
	}
	if len(foreign) > 0 && !own.first && !proved {
		return nil, ErrKey
	}
	return foreign, nil
}

// Proves reports whether the key of f proves its first page: that it is the
// key f is encrypted with. It must not be called while this process has f open.
func Proves(f File) bool {
	db, info, err := disk.Open(f.Path)
	if err != nil || !f.Encrypted() {
		return false
	}
	defer func() { _ = db.Close() }() // read only
	own, err := newProver(f, db, info.Size())
	return err == nil && own.first
}

// ownLogs refuses a file whose logs SQLite must not see.
func ownLogs(f File) error {
	foreign, err := ForeignLogs(f)
	if err == nil && len(foreign) > 0 {
		err = ErrForeignLog
	}
	return err
}

// logFile is a log that is read only.
type logFile struct {
	io.ReaderAt
	size int64
}

// logState is what a log would do to its database.
type logState uint8

const (
	logIdle    logState = iota // nothing: SQLite finds no whole transaction in it
	logOwn                     // it holds the database's pages
	logForeign                 // it holds something else
)

// prover tells pages of one database from others.
type prover struct {
	size  int64 // of a page
	bytes int64 // of the file
	salt  []byte
	pages *pages // nil for a plaintext database
	first bool   // the file's own first page is proved
}

func newProver(f File, db io.ReaderAt, size int64) (prover, error) {
	p := prover{size: PageSize, bytes: size}
	page := make([]byte, PageSize)
	n, err := db.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	if !f.Encrypted() {
		p.first = bytes.HasPrefix(page[:n], []byte(magic))
		p.size = max(pageSize(page[:n]), minPageSize)
		return p, nil
	}
	p.salt = bytes.Clone(page[:saltSize])
	if p.pages, err = newPages(f.Key, p.salt); err != nil {
		return p, err
	}
	p.first = n == PageSize && p.proves(page, 1)
	return p, nil
}

// proves reports whether page belongs to the database under that number. Of a
// plaintext one only the first page says what it is.
func (p *prover) proves(page []byte, number uint32) bool {
	if p.pages == nil {
		return number != 1 || bytes.HasPrefix(page, []byte(magic)) && pageSize(page) == p.size
	}
	if number == 1 && !bytes.Equal(page[:saltSize], p.salt) {
		return false
	}
	return hmac.Equal(p.pages.tag(page, bodyStart(number), number), page[PageSize-macSize:])
}

// walState reads a write-ahead log as SQLite does: up to the last transaction
// whose frames have the header's salts and an unbroken chain of checksums.
func walState(log logFile, own *prover) (logState, error) {
	head := make([]byte, walHeaderSize)
	if n, err := log.ReadAt(head, 0); n < len(head) {
		return logIdle, notEOF(err)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if magic := binary.BigEndian.Uint32(head); magic&^1 != walMagic {
		return logIdle, nil
	} else if magic&1 == 1 {
		order = binary.BigEndian
	}
	sum := walSum{order: order}
	sum.add(head[:24])
	size := int64(binary.BigEndian.Uint32(head[8:]))
	if !sum.is(head[24:]) || !possible(size, minPageSize, maxPageSize) {
		return logIdle, nil
	}
	in := io.NewSectionReader(log, walHeaderSize, log.size)
	frame, state, alien := make([]byte, walFrameHeader+size), logIdle, false
	for {
		if _, err := io.ReadFull(in, frame); err != nil {
			return state, notEOF(err)
		}
		page, number := frame[walFrameHeader:], binary.BigEndian.Uint32(frame)
		sum.add(frame[:8])
		sum.add(page)
		if number == 0 || !bytes.Equal(frame[8:16], head[16:24]) || !sum.is(frame[16:]) {
			return state, nil
		}
		alien = alien || size != own.size || !own.proves(page, number)
		if committed := binary.BigEndian.Uint32(frame[4:]) != 0; !committed {
			continue
		}
		if alien {
			return logForeign, nil
		}
		state = logOwn
	}
}

// walSum is the running checksum of a write-ahead log.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (w *walSum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		w.s0 += w.order.Uint32(b) + w.s1
		w.s1 += w.order.Uint32(b[4:]) + w.s0
	}
}

func (w *walSum) is(b []byte) bool {
	return binary.BigEndian.Uint32(b) == w.s0 && binary.BigEndian.Uint32(b[4:]) == w.s1
}

// journalState reads a rollback journal as SQLite does when it finds one after
// a crash: headers at whole sectors, each followed by pages with a checksum.
func journalState(log logFile, own *prover) (logState, error) {
	head := make([]byte, journalHead)
	var size, sector, original int64
	records, looked := 0, false
	for at := int64(0); at+max(sector, journalLeast) <= log.size; {
		if _, err := log.ReadAt(head, at); err != nil {
			return logIdle, notEOF(err)
		}
		if string(head[:8]) != journalMagic {
			break
		}
		if at == 0 {
			original = int64(binary.BigEndian.Uint32(head[16:]))
			sector, size = int64(binary.BigEndian.Uint32(head[20:])), int64(binary.BigEndian.Uint32(head[24:]))
			if size == 0 {
				size = own.size
			}
			if !possible(sector, minSectorSize, maxSectorSize) || !possible(size, minPageSize, maxPageSize) {
				return logIdle, nil
			}
			if size != own.size {
				return logForeign, nil
			}
		}
		at += sector
		count := int64(binary.BigEndian.Uint32(head[8:]))
		left := max(0, log.size-at) / (size + journalFrame)
		if count == journalUncounted || count > left {
			count = left
		}
		look := count
		if count == 0 && records == 0 && !looked {
			look, looked = left, true // not played back, since they were not flushed; but they tell whose it is
		}
		n, alien, err := journalPages(io.NewSectionReader(log, at, look*(size+journalFrame)), binary.BigEndian.Uint32(head[12:]), original, own)
		if err != nil || alien && count > 0 {
			return logForeign, err
		}
		records += n
		at = (at + count*(size+journalFrame) + sector - 1) / sector * sector
	}
	switch {
	case records > 0:
		return logOwn, nil
	case size > 0 && own.bytes > max(original, 1)*size:
		return logForeign, nil // it would cut off pages; the first one is kept in every journal that does
	}
	return logIdle, nil
}

// journalPages looks at the pages behind one header: how many are the
// database's, and whether one is not.
func journalPages(in io.Reader, seed uint32, original int64, own *prover) (proved int, alien bool, err error) {
	record := make([]byte, own.size+journalFrame)
	for {
		if _, err := io.ReadFull(in, record); err != nil {
			return proved, false, notEOF(err)
		}
		number, page := binary.BigEndian.Uint32(record), record[4:4+own.size]
		sum := seed
		for i := own.size - journalSumStep; i > 0; i -= journalSumStep {
			sum += uint32(page[i])
		}
		added := int64(number) > original // since, and so passed over
		switch {
		case added && number != 0:
		case number == 0, sum != binary.BigEndian.Uint32(record[4+own.size:]):
			return proved, false, nil
		case !own.proves(page, number):
			return proved, true, nil
		default:
			proved++
		}
	}
}

// possible reports whether n is a power of two within bounds.
func possible(n, least, most int64) bool {
	return n >= least && n <= most && bits.OnesCount64(uint64(n)) == 1 //nolint:gosec // not negative
}

// notEOF is err, unless it only says that a log ends.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("sqlcipher: reading a log: %w", err)
}
