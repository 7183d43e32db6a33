package panes

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"

	"osaurus/resources"
)

// texts are those of one language, over English.
type texts map[string]string

var english = sync.OnceValue(func() texts {
	t, err := readTexts("en")
	if err != nil {
		panic("panes: the English texts do not parse: " + err.Error()) // a test reads them
	}
	return t
})

func readTexts(language string) (texts, error) {
	raw, err := resources.Strings.ReadFile("strings/" + language + ".json")
	if err != nil {
		return nil, err
	}
	t := texts{}
	return t, json.Unmarshal(raw, &t)
}

// textsFor returns a language's texts; what it lacks is English.
func textsFor(language string) texts {
	all := texts{}
	for k, v := range english() {
		all[k] = v
	}
	base, _, _ := strings.Cut(language, "-")
	if t, err := readTexts(base); err == nil {
		for k, v := range t {
			all[k] = v
		}
	}
	return all
}

// Text returns a text of this model's language with its {placeholders} filled
// from pairs of name and value.
func (m *Model) Text(key string, pairs ...string) string { return m.t(key, pairs...) }

func (m *Model) t(key string, pairs ...string) string {
	text, ok := m.texts[key]
	if !ok {
		return key
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		pairs[i] = "{" + pairs[i] + "}"
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// n is t with the form for a number, which fills {n}.
func (m *Model) n(key string, n int, pairs ...string) string {
	form := ".other"
	if n == 1 {
		form = ".one"
	}
	return m.t(key+form, append(pairs, "n", strconv.Itoa(n))...)
}
