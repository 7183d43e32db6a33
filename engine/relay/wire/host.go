package wire

import (
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Unsendable is the status of a well-formed answer whose status is no integer,
// or zero: no HTTP answer can carry it.
const Unsendable = -1

// anyJSON lets through what JavaScript's parser does, to look at a frame that
// is refused.
var anyJSON = json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// ParseHost reads a frame of a host as the relay does (relay.md section 3.3):
// like Parse, and strict about fields that are absent or null. ErrJSON means no
// JSON at all; of everything else that is refused the ID may be set.
func ParseHost(raw []byte) (Frame, error) {
	if !utf8.Valid(raw) {
		return Frame{}, ErrJSON
	}
	var f Frame
	if json.Unmarshal(raw, &f, jsontext.AllowInvalidUTF8(true)) != nil {
		return rescue(raw)
	}
	if f.doubtful() && !f.sound(raw) || !f.valid() {
		return Frame{Type: f.Type, ID: short(f.ID)}, ErrFrame
	}
	return f, nil
}

// rescue looks at a frame that does not fit: whose request it was about, and
// whether only its status is no integer.
func rescue(raw []byte) (Frame, error) {
	if !jsontext.Value(raw).IsValid(anyJSON) {
		return Frame{}, ErrJSON
	}
	var fields map[string]jsontext.Value
	if json.Unmarshal(raw, &fields, anyJSON) != nil {
		return Frame{}, ErrFrame
	}
	twice := !jsontext.Value(raw).IsValid(jsontext.AllowInvalidUTF8(true)) // a name
	if status := fields["status"]; !twice && status.Kind() == '0' {
		fields["status"] = jsontext.Value("-1")
		if again, err := json.Marshal(fields, jsontext.AllowInvalidUTF8(true)); err == nil {
			var f Frame
			if json.Unmarshal(again, &f) == nil && (!f.doubtful() || f.sound(again)) && f.valid() {
				return f, nil
			}
		}
	}
	var f Frame
	_ = json.Unmarshal(fields["type"], &f.Type, anyJSON) // it stays empty
	_ = json.Unmarshal(fields["id"], &f.ID, anyJSON)
	f.ID = short(f.ID)
	return f, ErrFrame
}

func short(id string) string {
	if Length(id) > MaxID {
		return ""
	}
	return id
}

// doubtful reports whether a field is empty that may have been absent or null.
func (f *Frame) doubtful() bool {
	for _, value := range f.Headers {
		if value == "" {
			return true
		}
	}
	return f.Type == Response && f.Body == nil || f.Status == 0 && (f.Type == Response || f.Type == StreamStart) || f.Type == StreamChunk && f.Data == ""
}

// sound looks at the kinds of the fields of an answer. A status of zero is
// there, and cannot be sent.
func (f *Frame) sound(raw []byte) bool {
	var fields, headers map[string]jsontext.Value
	if json.Unmarshal(raw, &fields, anyJSON) != nil {
		return false
	}
	text := func(name string) bool { return fields[name].Kind() == '"' }
	if f.Type == StreamChunk {
		return text("data")
	}
	if _, there := fields["body"]; there && !text("body") {
		return false
	}
	if fields["status"].Kind() != '0' || json.Unmarshal(fields["headers"], &headers, anyJSON) != nil {
		return false
	}
	for _, value := range headers {
		if value.Kind() != '"' {
			return false
		}
	}
	if f.Status == 0 {
		f.Status = Unsendable
	}
	return true
}
