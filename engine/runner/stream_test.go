package runner

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func events(text string) (all []string, err error) {
	r := bufio.NewReader(strings.NewReader(text))
	for {
		data, err := readEvent(r)
		if err != nil {
			return all, err
		}
		all = append(all, string(data))
	}
}

// FuzzReadEvent: an event that was read reads the same when written again,
// line by line.
func FuzzReadEvent(f *testing.F) {
	for _, text := range answers {
		f.Add(text)
	}
	f.Add("data\n\ndata:\n\n:x\ndata:  y\r\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := events(text)
		if err == nil {
			t.Fatal("the end of the stream was not noticed")
		}
		var out bytes.Buffer
		for _, e := range first {
			for line := range strings.SplitSeq(e, "\n") {
				out.WriteString("data: " + line + "\n")
			}
			out.WriteString("\n")
		}
		again, _ := events(out.String())
		if strings.Join(again, "|") != strings.Join(first, "|") {
			t.Errorf("%q became %q", first, again)
		}
	})
}
