package atomicfile

import "os"

// Document is a small file that is read and replaced whole, wherever and in
// whatever form it is kept.
type Document interface {
	// Read passes the content to parse, and its error on. A document that was
	// never written is fs.ErrNotExist.
	Read(parse func([]byte) error) error
	// Write replaces the content durably.
	Write(content []byte) error
}

// Plain is the Document at a path, in the clear.
type Plain string

// Read implements Document.
func (p Plain) Read(parse func([]byte) error) error {
	raw, err := os.ReadFile(string(p))
	if err != nil {
		return err
	}
	return parse(raw)
}

// Write implements Document.
func (p Plain) Write(content []byte) error { return Write(string(p), content) }
