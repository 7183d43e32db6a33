package wire

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Marshal writes a frame, by hand because frames are most of what a relay
// does. Absent fields are left out, headers are sorted. Characters that a host
// may not have sent, invalid UTF-8, become U+FFFD. It returns no error.
func (f *Frame) Marshal() ([]byte, error) {
	size := 192 + len(f.Path) + len(f.Data) + 192*len(f.Agents)
	if f.Body != nil {
		size += len(*f.Body) + len(*f.Body)/16
	}
	for name, value := range f.Headers {
		size += len(name) + len(value) + 6
	}
	b := appendText(append(make([]byte, 0, size), '{'), "type", string(f.Type))
	b = appendSet(b, "address", f.Address)
	b = appendAgents(b, "agents", f.Agents)
	b = appendAgents(b, "rejected", f.Rejected)
	b = appendSet(b, "nonce", f.Nonce)
	b = appendSet(b, "signature", f.Signature)
	b = appendNumber(b, "timestamp", f.Timestamp)
	b = appendSet(b, "url", f.URL)
	b = appendSet(b, "region", f.Region)
	b = appendSet(b, "reason", f.Reason)
	b = appendSet(b, "error", f.Error)
	if f.TS != nil {
		b = strconv.AppendInt(appendName(b, "ts"), *f.TS, 10)
	}
	b = appendSet(b, "id", f.ID)
	b = appendSet(b, "method", f.Method)
	b = appendSet(b, "path", f.Path)
	b = appendNumber(b, "status", int64(f.Status))
	b = appendHeaders(b, f.Headers)
	if f.Body != nil {
		b = appendText(b, "body", *f.Body)
	}
	b = appendSet(b, "bodyEncoding", f.Encoding)
	b = appendSet(b, "data", f.Data)
	return append(b, '}'), nil
}

// appendName writes a name of ours, which needs no escapes, and what stands
// before and behind it.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendText(b []byte, name, value string) []byte { return quote(appendName(b, name), value) }

// appendSet leaves out what is empty.
func appendSet(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendText(b, name, value)
}

func appendNumber(b []byte, name string, value int64) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), value, 10)
}

// quote appends a JSON string. An error says that something was replaced.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

func appendAgents(b []byte, name string, agents []Agent) []byte {
	if agents == nil {
		return b
	}
	b = append(appendName(b, name), '[')
	for i, a := range agents {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, '{'), "address", a.Address)
		b = appendSet(b, "signature", a.Signature)
		b = appendSet(b, "url", a.URL)
		b = append(appendSet(b, "reason", a.Reason), '}')
	}
	return append(b, ']')
}

func appendHeaders(b []byte, headers map[string]string) []byte {
	if headers == nil {
		return b
	}
	var few [24]string // on the stack, as most have
	names := few[:0]
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(appendName(b, "headers"), '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(quote(b, name), ':')
		b = quote(b, headers[name])
	}
	return append(b, '}')
}
