package sandbox

import (
	"context"
	"strconv"
	"strings"
	"testing"
)

// TestRecipeBounds: each limit of a recipe, and one more.
func TestRecipeBounds(t *testing.T) {
	t.Parallel()
	files := func(n int) map[string]string {
		all := map[string]string{}
		for i := range n {
			all["f"+strconv.Itoa(i)] = ""
		}
		return all
	}
	commands := func(n int) (all []Tool) {
		for i := range n {
			all = append(all, Tool{ID: "t" + strconv.Itoa(i), Run: "true"})
		}
		return all
	}
	text := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		of    func(n int) Recipe
		limit int
	}{
		"files":          {func(n int) Recipe { return Recipe{Files: files(n)} }, MaxRecipeFiles},
		"file path":      {func(n int) Recipe { return Recipe{Files: map[string]string{text(n): ""}} }, maxFilePath},
		"tools":          {func(n int) Recipe { return Recipe{Tools: commands(n)} }, MaxRecipeTools},
		"tool's id":      {func(n int) Recipe { return Recipe{Tools: []Tool{{ID: text(n), Run: "true"}}} }, 64},
		"tool's command": {func(n int) Recipe { return Recipe{Tools: []Tool{{ID: "t", Run: text(n)}}} }, MaxRecipeText},
		"daemon":         {func(n int) Recipe { return Recipe{Daemon: &Daemon{Command: text(n)}} }, MaxRecipeText},
		"setup":          {func(n int) Recipe { return Recipe{Setup: text(n)} }, MaxRecipeText},
		"description":    {func(n int) Recipe { return Recipe{Description: text(n)} }, MaxRecipeText},
		"dependency":     {func(n int) Recipe { return Recipe{Dependencies: []string{text(n)}} }, MaxSpecifier},
	} {
		for _, over := range []int{0, 1} {
			r := c.of(c.limit + over)
			r.ID, r.Name = "x", "X"
			err := r.Validate(context.Background(), nil, func(context.Context, string) (bool, error) { return true, nil })
			if (err != nil) != (over == 1) {
				t.Errorf("%s: %d gives %v", name, c.limit+over, err)
			}
		}
	}
	for _, command := range []string{"", " \n", "a\x00b"} {
		r := Recipe{ID: "x", Name: "X", Daemon: &Daemon{Command: command}}
		if r.Validate(context.Background(), nil, nil) == nil {
			t.Errorf("a daemon of %q", command)
		}
	}
	if r := (Recipe{ID: text(65), Name: "x"}); r.Validate(context.Background(), nil, nil) == nil {
		t.Error("an id of 65 characters")
	}
}

// TestHostLength: a name of a host has at most 253 characters.
func TestHostLength(t *testing.T) {
	t.Parallel()
	name := strings.Repeat(strings.Repeat("a", 62)+".", 4) // 252
	if p := name + "a"; len(p) != maxHost || !ValidPattern(p) {
		t.Errorf("%d characters are refused", len(p))
	}
	if ValidPattern(name + "ab") {
		t.Error("one more passes")
	}
}

// TestToolNames: a plugin's tool is offered under a name that providers take.
func TestToolNames(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("p", 31)
	for tool, want := range map[string]bool{strings.Repeat("t", maxToolName-32): true, strings.Repeat("t", maxToolName-31): false} {
		if got := (pluginTool{id, Tool{ID: tool}}).offeredAs(); (got != "") != want {
			t.Errorf("%d characters: %q", 32+len(tool), got)
		}
	}
}
