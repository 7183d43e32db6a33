package eventlog

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"osaurus/engine/secret"
)

// Problem says where the chain breaks.
type Problem struct {
	File string
	Line int
	What string
}

// Error names the file, the line and what is wrong with it.
func (p *Problem) Error() string { return fmt.Sprintf("%s line %d: %s", p.File, p.Line, p.What) }

// Verify checks every line of the log at path against the chain, and the end
// against the head kept apart from it (zero to skip). It returns the last line
// that holds. Errors: *Problem for the first break.
func Verify(path string, key secret.Bytes, head Head) (Head, error) {
	files, err := Files(path)
	if err != nil {
		return Head{}, err
	}
	at, seen := Head{Hash: zeroHash}, head.Seq == 0
	for _, name := range files {
		if at, err = verifyFile(name, key, at, head, &seen); err != nil {
			return at, err
		}
	}
	if !seen {
		return at, &Problem{filepath.Base(path), 0, fmt.Sprintf("ends at %d, but line %d was written: lines were cut off or replaced", at.Seq, head.Seq)}
	}
	return at, nil
}

func verifyFile(name string, key secret.Bytes, at, head Head, seen *bool) (Head, error) {
	f, err := os.Open(name)
	if err != nil {
		return at, err
	}
	defer func() { _ = f.Close() }() // read only
	r := bufio.NewReaderSize(f, MaxLine+1)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return at, nil
		}
		if err != nil {
			return at, &Problem{filepath.Base(name), n, "is torn or too long"}
		}
		next, what := verifyLine(bytes.TrimSuffix(line, []byte("\n")), key, at)
		if what != "" {
			return at, &Problem{filepath.Base(name), n, what}
		}
		at = next
		*seen = *seen || at == head
	}
}

// verifyLine rebuilds the bytes that were hashed: the line without its hash
// member, whose value has a fixed length and form.
func verifyLine(line []byte, key secret.Bytes, at Head) (Head, string) {
	var got struct {
		Seq  uint64 `json:"seq"`
		Prev string `json:"prev"`
		Hash string `json:"hash"`
	}
	if json.Unmarshal(line, &got) != nil || len(got.Hash) != len(zeroHash) {
		return at, "is not an event"
	}
	if got.Seq != at.Seq+1 {
		return at, fmt.Sprintf("has number %d after %d: lines are missing or out of order", got.Seq, at.Seq)
	}
	if got.Prev != at.Hash {
		return at, "does not follow the line before it"
	}
	member := []byte(`"hash":"` + got.Hash + `",`)
	bare := bytes.Replace(line, member, nil, 1)
	if len(bare) == len(line) || !hmac.Equal([]byte(chain(key, got.Prev, bare)), []byte(got.Hash)) {
		return at, "was changed"
	}
	return Head{got.Seq, got.Hash}, ""
}
