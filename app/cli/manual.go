package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Manual returns one page of section 1 for every command, by file name. The
// date is that of the release, so that the same source gives the same bytes.
// Cobra can do this by way of Markdown, with three more modules, one of them
// long untouched; what our texts need of roff(7) is less than that.
func Manual(date time.Time) map[string][]byte {
	pages := map[string][]byte{}
	each(documented(), func(c *cobra.Command) {
		pages[pageName(c)+".1"] = manualPage(c, date)
	})
	return pages
}

// Completions returns the scripts of the shells, by the place Debian and
// Homebrew have for each.
func Completions() (map[string][]byte, error) {
	root := documented()
	files := map[string][]byte{}
	for _, shell := range []struct {
		file  string
		write func(io.Writer) error
	}{
		{"bash/osaurus", func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh/_osaurus", root.GenZshCompletion},
		{"fish/osaurus.fish", func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
	} {
		var b bytes.Buffer
		if err := shell.write(&b); err != nil {
			return nil, err
		}
		files[shell.file] = b.Bytes()
	}
	return files, nil
}

// documented is the tree of commands with nothing behind it.
func documented() *cobra.Command {
	a := &app{System: System{Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard}}
	root := a.root()
	a.term = newTerm(a)
	root.InitDefaultHelpFlag()
	return root
}

// each visits every command that people see.
func each(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			each(sub, f)
		}
	}
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func manualPage(c *cobra.Command, date time.Time) []byte {
	c.InitDefaultHelpFlag()
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 1 %s %s\n", quote(strings.ToUpper(pageName(c))), quote(date.UTC().Format(time.DateOnly)), quote("osaurus "+Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n")
		verbatim(&b, c.Long)
	}
	if subs := c.Commands(); len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	options(&b, "OPTIONS", c.NonInheritedFlags())
	options(&b, "OPTIONS OF EVERY COMMAND", c.InheritedFlags())
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		verbatim(&b, c.Example)
	}
	if p := c.Parent(); p != nil {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roff(pageName(p)))
	} else {
		b.WriteString(".SH EXIT STATUS\n")
		verbatim(&b, exitCodes)
		b.WriteString(".SH FILES\n.TP\n.I ~/.osaurus\nEverything a host keeps; \\-\\-home and OSAURUS_HOME name another place.\n")
	}
	return b.Bytes()
}

func options(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind, _ := pflag.UnquoteUsage(f); kind != "" {
			name += " " + kind
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(f.Usage))
	})
}

// verbatim keeps lines as they stand.
func verbatim(b *bytes.Buffer, text string) {
	fmt.Fprintf(b, ".nf\n%s\n.fi\n", roff(strings.Trim(text, "\n")))
}

// roff makes a text mean itself: a backslash starts an escape, a dot or a quote
// at the start of a line is a request, a bare hyphen may become another sign.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// quote makes a text one argument of a request.
func quote(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
