package blob

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"osaurus/engine/internal/canonjson"
)

// What is at least this long leaves the row for a blob (storage.md section 6).
const (
	SpillImage    = 16 << 10
	SpillDocument = 16 << 10 // of UTF-8 text
	SpillAudio    = 256 << 10
	SpillVideo    = 64 << 10
)

// Kind is what an attachment is.
type Kind string

// The kinds.
const (
	Image    Kind = "image"
	Document Kind = "document"
	Audio    Kind = "audio"
	Video    Kind = "video"
)

const refSuffix = "_ref"

func (k Kind) threshold() (int, error) {
	switch k {
	case Image:
		return SpillImage, nil
	case Document:
		return SpillDocument, nil
	case Audio:
		return SpillAudio, nil
	case Video:
		return SpillVideo, nil
	}
	return 0, ErrAttachment
}

// mentioned finds the blobs in the attachments JSON of any host. In a string
// of the JSON the quotes would be escaped, so a text cannot look like one.
var mentioned = regexp.MustCompile(`"hash"\s*:\s*"([0-9a-f]{64})"`)

// Mentioned returns the blobs that the attachments JSON of a turn refers to.
func Mentioned(attachments string) []Hash {
	var all []Hash
	for _, m := range mentioned.FindAllStringSubmatch(attachments, -1) {
		all = append(all, Hash(m[1]))
	}
	return all
}

// ErrAttachment refuses attachment JSON; it never contains the input.
var ErrAttachment = errors.New("blob: malformed attachment")

// Attachment is one attachment of a turn: with its content, or with the hash
// of the blob that has it.
type Attachment struct {
	Kind     Kind
	Filename string
	Format   string // of audio
	Content  []byte // nil when it stands in a blob
	Hash     Hash   // empty when it stands here
	Size     int64
}

// wire is the JSON of an attachment in its row. Documents carry text, the
// others base64.
type wire struct {
	Type      string  `json:"type"`
	Filename  string  `json:"filename,omitempty"`
	Format    string  `json:"format,omitempty"`
	Content   *string `json:"content,omitempty"`
	Data      *string `json:"data,omitempty"`
	Hash      Hash    `json:"hash,omitempty"`
	ByteCount *int64  `json:"byteCount,omitempty"`
	FileSize  *int64  `json:"fileSize,omitempty"`
}

// MarshalJSON writes the form that stands in the row.
func (a Attachment) MarshalJSON() ([]byte, error) {
	if _, err := a.Kind.threshold(); err != nil {
		return nil, err
	}
	w := wire{Type: string(a.Kind), Filename: a.Filename, Format: a.Format}
	if a.Kind == Document {
		w.FileSize = &a.Size
	} else if a.Hash != "" {
		w.ByteCount = &a.Size
	}
	switch {
	case a.Hash != "":
		w.Type, w.Hash = w.Type+refSuffix, a.Hash
	case a.Kind == Document:
		text := string(a.Content)
		w.Content = &text
	default:
		data := base64.StdEncoding.EncodeToString(a.Content)
		w.Data = &data
	}
	return canonjson.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Attachment) UnmarshalJSON(raw []byte) error {
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return ErrAttachment
	}
	got := Attachment{Filename: w.Filename, Format: w.Format}
	kind, ref := strings.CutSuffix(w.Type, refSuffix)
	got.Kind = Kind(kind)
	if _, err := got.Kind.threshold(); err != nil {
		return err
	}
	var err error
	switch {
	case ref:
		got.Hash, err = ParseHash(string(w.Hash))
	case got.Kind == Document && w.Content != nil:
		got.Content = []byte(*w.Content)
	case got.Kind != Document && w.Data != nil:
		got.Content, err = base64.StdEncoding.DecodeString(*w.Data)
	default:
		err = ErrAttachment
	}
	if err != nil {
		return ErrAttachment
	}
	got.Size = int64(len(got.Content))
	for _, size := range []*int64{w.ByteCount, w.FileSize} {
		if size != nil {
			got.Size = *size
		}
	}
	*a = got
	return nil
}

// Spill returns list with the content of everything long enough moved into
// blobs. list itself is not changed.
func (s *Store) Spill(list []Attachment) ([]Attachment, error) {
	out := make([]Attachment, len(list))
	for i, a := range list {
		least, err := a.Kind.threshold()
		if err != nil {
			return nil, err
		}
		if a.Hash == "" {
			a.Size = int64(len(a.Content))
		}
		if a.Hash == "" && len(a.Content) >= least {
			if a.Hash, err = s.PutBytes(a.Content); err != nil {
				return nil, fmt.Errorf("blob: keeping an attachment: %w", err)
			}
			a.Content = nil
		}
		out[i] = a
	}
	return out, nil
}

// Load returns a with its content.
func (s *Store) Load(a Attachment) (Attachment, error) {
	if a.Hash == "" {
		return a, nil
	}
	content, err := s.Get(a.Hash)
	if err != nil {
		return Attachment{}, err
	}
	a.Hash, a.Content, a.Size = "", content, int64(len(content))
	return a, nil
}
