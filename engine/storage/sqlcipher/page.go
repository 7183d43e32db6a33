package sqlcipher

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// The layout of a page (storage.md section 3): content, the IV and the MAC in
// the reserve at its end. Page 1 begins with the salt in place of the magic.
const (
	saltSize    = 16
	macSize     = sha512.Size
	reserveSize = aes.BlockSize + macSize
	bodyEnd     = PageSize - reserveSize
	macSaltMask = 0x3a
	macRounds   = 2
	macKeySize  = 32

	// Offsets in SQLite's header: how the file is written and read (1 the
	// rollback journal, 2 the write-ahead log), and the reserve of each page.
	writeVersionAt, readVersionAt, reserveAt = 18, 19, 20

	// lockPage is the page that holds SQLite's locks and is never written.
	lockPage = 1<<30/PageSize + 1
)

// pages turns encrypted pages into plain ones and back. It is for files that
// nobody has open: no plaintext has to lie on disk between the two.
type pages struct {
	block cipher.Block
	mac   hash.Hash
	sum   [macSize]byte
}

func newPages(key dek.Key, salt []byte) (*pages, error) {
	raw := key.Bytes()
	block, err := aes.NewCipher(raw.Expose())
	if err != nil {
		return nil, err
	}
	macSalt := bytes.Clone(salt)
	for i := range macSalt {
		macSalt[i] ^= macSaltMask
	}
	macKey, err := pbkdf2.Key(sha512.New, string(raw.Expose()), macSalt, macRounds, macKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(macKey)
	return &pages{block: block, mac: hmac.New(sha512.New, macKey)}, nil
}

// tag authenticates a page from its body to its IV, and its number.
func (p *pages) tag(page []byte, from int, number uint32) []byte {
	p.mac.Reset()
	p.mac.Write(page[from : bodyEnd+aes.BlockSize])
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], number)
	p.mac.Write(n[:])
	return p.mac.Sum(p.sum[:0])
}

// open decrypts a page in place and clears its reserve. A page that was never
// written is zero and stays so.
func (p *pages) open(page []byte, number uint32) error {
	from := bodyStart(number)
	if !hmac.Equal(p.tag(page, from, number), page[bodyEnd+aes.BlockSize:]) {
		if number > 1 && len(bytes.Trim(page, "\x00")) == 0 {
			return nil
		}
		return fmt.Errorf("%w: page %d", ErrDamaged, number)
	}
	cipher.NewCBCDecrypter(p.block, page[bodyEnd:bodyEnd+aes.BlockSize]).CryptBlocks(page[from:bodyEnd], page[from:bodyEnd])
	clear(page[bodyEnd:])
	if number == 1 {
		copy(page, magic)
	}
	return nil
}

// seal encrypts a page in place under a fresh IV.
func (p *pages) seal(page []byte, number uint32) {
	from, iv := bodyStart(number), page[bodyEnd:bodyEnd+aes.BlockSize]
	_, _ = rand.Read(iv) // never fails
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(page[from:bodyEnd], page[from:bodyEnd])
	copy(page[bodyEnd+aes.BlockSize:], p.tag(page, from, number))
}

func bodyStart(number uint32) int {
	if number == 1 {
		return saltSize
	}
	return 0
}

// WritePlain writes a database that nobody has open to dst as the plain SQLite
// file it is inside, of the same size; page by page, so that an export has
// never lain on disk readable. The copy asks for no write-ahead log, so that it
// opens from a folder that cannot be written too. The file must have been
// verified: what is wrong with a page is told only when its turn comes.
func WritePlain(ctx context.Context, dst io.Writer, f File, p Progress) error {
	for _, side := range Sidecars(f.Path) {
		if _, err := disk.Regular(side); err == nil {
			return fmt.Errorf("%w: a log stays beside it", ErrBusy)
		}
	}
	src, info, err := disk.Open(f.Path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // read only
	in := bufio.NewReaderSize(src, 16*PageSize)
	if !f.Encrypted() {
		return copyPages(ctx, dst, in, info.Size(), p, func(page []byte, number uint32) error {
			if number == 1 && !bytes.HasPrefix(page, []byte(magic)) {
				return ErrNotVerified
			}
			return nil
		})
	}
	salt, err := in.Peek(saltSize)
	if err != nil || info.Size()%PageSize != 0 {
		return errors.Join(ErrDamaged, err)
	}
	pages, err := newPages(f.Key, salt)
	if err != nil {
		return err
	}
	return copyPages(ctx, dst, in, info.Size(), p, func(page []byte, number uint32) error {
		if number == lockPage {
			clear(page)
			return nil
		}
		return pages.open(page, number)
	})
}

// copyPages passes size bytes through turn, page by page.
func copyPages(ctx context.Context, dst io.Writer, src io.Reader, size int64, p Progress, turn func(page []byte, number uint32) error) error {
	out := bufio.NewWriterSize(dst, 16*PageSize)
	page := make([]byte, PageSize)
	for done, number := int64(0), uint32(1); done < size; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		page := page[:min(PageSize, size-done)]
		if _, err := io.ReadFull(src, page); err != nil {
			return err
		}
		if err := turn(page, number); err != nil {
			return err
		}
		if number == 1 && len(page) > reserveAt && bytes.HasPrefix(page, []byte(magic)) {
			page[writeVersionAt], page[readVersionAt] = 1, 1
		}
		if _, err := out.Write(page); err != nil {
			return err
		}
		done += int64(len(page))
		if p != nil && (number%backupPages == 0 || done == size) {
			p(done, size)
		}
	}
	return out.Flush()
}

// Sealable reports whether WriteSealed takes a plain database with this
// beginning: its pages leave room for an IV and a MAC, as those that
// WritePlain made of encrypted ones do.
func Sealable(head []byte, size int64) bool {
	return len(head) > reserveAt && bytes.HasPrefix(head, []byte(magic)) && binary.BigEndian.Uint16(head[16:]) == PageSize && head[reserveAt] == reserveSize && size%PageSize == 0
}

// WriteSealed is the way back from WritePlain: it encrypts size bytes of a
// plain database that is Sealable to dst. Verify proves the result.
func WriteSealed(ctx context.Context, dst io.Writer, src io.Reader, size int64, key dek.Key, p Progress) error {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	pages, err := newPages(key, salt)
	if err != nil {
		return err
	}
	return copyPages(ctx, dst, src, size, p, func(page []byte, number uint32) error {
		switch {
		case number == 1 && !Sealable(page, size):
			return ErrNotVerified
		case number == 1:
			copy(page, salt)
			page[writeVersionAt], page[readVersionAt] = 1, 1
		case number == lockPage:
			return nil
		}
		pages.seal(page, number)
		return nil
	})
}
