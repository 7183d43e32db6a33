// Package plain makes texts of others safe to hand to a system that shows them.
package plain

import "strings"

// MaxText bounds what is shown of a title or a text, in bytes.
const MaxText = 1000

// Text makes s whole UTF-8 without a zero byte or controls other than line
// feeds, and not too long.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + "…"
	}
	return s
}
