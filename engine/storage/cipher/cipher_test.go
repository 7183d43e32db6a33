package cipher

import (
	"bytes"
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/hmac"
	"crypto/sha512"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/secret"
)

func key(first byte) secret.Bytes { return secret.Take(bytes.Repeat([]byte{first}, KeySize)) }

func open(t testing.TB, path string, k secret.Bytes) *sqlite3.SQLiteConn {
	t.Helper()
	var conn driver.Conn
	err := Keyed(k, func() (err error) {
		conn, err = (&sqlite3.SQLiteDriver{}).Open(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c, ok := conn.(*sqlite3.SQLiteConn)
	if !ok {
		t.Fatalf("the driver returned %T", conn)
	}
	return c
}

func run(t testing.TB, c *sqlite3.SQLiteConn, query string, args ...driver.Value) {
	t.Helper()
	if _, err := c.Exec(query, args); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func ask(c *sqlite3.SQLiteConn, query string) (string, error) {
	rows, err := c.Query(query, nil)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	dest := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(dest); err != nil {
		return "", err
	}
	if b, ok := dest[0].([]byte); ok {
		return string(b), nil
	}
	return fmt.Sprint(dest[0]), nil
}

func mustAsk(t testing.TB, c *sqlite3.SQLiteConn, query string) string {
	t.Helper()
	got, err := ask(c, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return got
}

func TestKeyedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	c := open(t, path, key(1))
	if got := mustAsk(t, c, "PRAGMA cipher_provider"); got != Provider {
		t.Errorf("the provider is %q, want %q", got, Provider)
	}
	run(t, c, "CREATE TABLE t(x)")
	run(t, c, "INSERT INTO t VALUES(?)", "a planted sentence")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || len(raw)%4096 != 0 || bytes.Contains(raw, []byte("SQLite")) || bytes.Contains(raw, []byte("planted")) {
		t.Fatalf("%d bytes that tell something, %v", len(raw), err)
	}
	c = open(t, path, key(1))
	if got := mustAsk(t, c, "SELECT x FROM t"); got != "a planted sentence" {
		t.Errorf("read %q", got)
	}
	c.Close()
	var wrong driver.Conn
	err = Keyed(key(2), func() (err error) { wrong, err = (&sqlite3.SQLiteDriver{}).Open(path); return err })
	if err == nil {
		c, _ := wrong.(*sqlite3.SQLiteConn)
		_, err = ask(c, "SELECT count(*) FROM sqlite_master")
		c.Close()
	}
	if err == nil {
		t.Error("another key opened it")
	}
}

// TestUnkeyedStaysPlain: the pending key reaches the connection it is for and
// no other.
func TestUnkeyedStaysPlain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 4 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if i%2 == 0 {
			c := open(t, path, key(1))
			run(t, c, "CREATE TABLE t(x)")
			c.Close()
		} else if err := Unkeyed(func() error {
			conn, err := (&sqlite3.SQLiteDriver{}).Open(path)
			if err == nil {
				c, _ := conn.(*sqlite3.SQLiteConn)
				run(t, c, "CREATE TABLE t(x)")
				c.Close()
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil || bytes.HasPrefix(raw, []byte("SQLite format 3\x00")) != (i%2 == 1) {
			t.Errorf("file %d begins with %q, %v", i, raw[:16], err)
		}
	}
}

func TestOnlyRawKeys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, KeySize - 1, KeySize + 1, 67} {
		err := Keyed(secret.Take(make([]byte, n)), func() error { t.Errorf("a key of %d bytes was used", n); return nil })
		if !errors.Is(err, ErrKeySize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if err := Keyed(key(1), func() error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// TestPageLayout decrypts a page with nothing but AES, HMAC and the rules of
// storage.md section 3, and so pins what our provider wrote.
func TestPageLayout(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	c := open(t, path, key(7))
	run(t, c, "CREATE TABLE t(x)")
	run(t, c, "INSERT INTO t VALUES('needle')")
	c.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page, reserve = 4096, 80
	salt := bytes.Clone(raw[:16])
	for i := range salt {
		salt[i] ^= 0x3a
	}
	raw256 := bytes.Repeat([]byte{7}, KeySize)
	macKey := make([]byte, KeySize)
	if err := derive(algorithmSHA512, raw256, salt, 2, macKey); err != nil {
		t.Fatal(err)
	}
	p := raw[page : 2*page]
	mac := hmac.New(sha512.New, macKey)
	mac.Write(p[:page-64])
	mac.Write([]byte{2, 0, 0, 0})
	if !hmac.Equal(mac.Sum(nil), p[page-64:]) {
		t.Fatal("the page's MAC is not HMAC-SHA512 over content, IV and page number")
	}
	block, err := aes.NewCipher(raw256)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, page-reserve)
	stdcipher.NewCBCDecrypter(block, p[page-reserve:page-64]).CryptBlocks(plain, p[:page-reserve])
	if !bytes.Contains(plain, []byte("needle")) {
		t.Error("the page does not decrypt with AES-256-CBC")
	}
}

// TestProviderStays: after the last connection closed, and in many at once,
// the provider is still ours (fault test 25).
func TestProviderStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			path := filepath.Join(dir, fmt.Sprint(w))
			for i := range 25 {
				c := open(t, path, key(byte(w+1)))
				if got, err := ask(c, "PRAGMA cipher_provider"); err != nil || got != Provider {
					t.Errorf("the provider is %q, %v", got, err)
				}
				if _, err := c.Exec(fmt.Sprintf("CREATE TABLE t%d(x)", i), nil); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	workers.Wait()
}

func TestStateRefuses(t *testing.T) {
	t.Parallel()
	var s state
	k, iv, block := make([]byte, KeySize), make([]byte, 16), make([]byte, 32)
	for name, err := range map[string]error{
		"short key": s.crypt(modeEncrypt, k[1:], iv, block, block), "short IV": s.crypt(modeEncrypt, k, iv[1:], block, block),
		"half a block": s.crypt(modeDecrypt, k, iv, block[1:], block[1:]), "no mode": s.crypt(2, k, iv, block, block),
		"no rounds": derive(algorithmSHA512, k, iv, 0, block), "no password": derive(algorithmSHA512, nil, iv, 1, block), "no hash": derive(3, k, iv, 1, block),
	} {
		if !errors.Is(err, errArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.sum(3, k, block, nil, make([]byte, 64)); !errors.Is(err, errArgument) {
		t.Errorf("an unknown MAC: %v", err)
	}
	for algorithm, size := range map[int]int{algorithmSHA1: 20, algorithmSHA256: 32, algorithmSHA512: 64} {
		if got, err := s.sum(algorithm, k, block, iv, make([]byte, 64)); err != nil || len(got) != size {
			t.Errorf("algorithm %d: %d bytes, %v", algorithm, len(got), err)
		}
	}
}

// TestStateFollowsTheKey: a cached schedule is never used for another key.
func TestStateFollowsTheKey(t *testing.T) {
	t.Parallel()
	var s state
	iv, in, mac := make([]byte, 16), []byte("sixteen bytes ok"), make([]byte, 64)
	seen := map[string]bool{}
	for _, first := range []byte{1, 2, 1, 2} {
		k, out := bytes.Repeat([]byte{first}, KeySize), make([]byte, 16)
		if err := s.crypt(modeEncrypt, k, iv, in, out); err != nil {
			t.Fatal(err)
		}
		sum, err := s.sum(algorithmSHA512, k, in, iv, mac)
		if err != nil {
			t.Fatal(err)
		}
		seen[hex.EncodeToString(out)+hex.EncodeToString(sum)] = true
		if err := s.crypt(modeDecrypt, k, iv, out, out); err != nil || !bytes.Equal(out, in) {
			t.Errorf("came back as %q, %v", out, err)
		}
	}
	if len(seen) != 2 {
		t.Errorf("two keys gave %d results", len(seen))
	}
	s.wipe()
	if s.mac.key != [KeySize]byte{} || s.encrypt.key != [KeySize]byte{} {
		t.Error("wiping left a key")
	}
}

// TestKDF pins PBKDF2-HMAC-SHA512 with a published vector's parameters.
func TestKDF(t *testing.T) {
	t.Parallel()
	out := make([]byte, 32)
	if err := derive(algorithmSHA512, []byte("password"), []byte("salt"), 1, out); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(out); got != "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252" {
		t.Error(got)
	}
}
