package wire

import (
	"strings"
	"unicode/utf8"
)

// printable makes a text that explains fit its field: valid UTF-8, one line, cut at a character. The code beside it
// carries the meaning, so losing a part of the text is better than refusing to say anything.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
