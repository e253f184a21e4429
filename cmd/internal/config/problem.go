package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Problem is one thing that is wrong with the file.
type Problem struct {
	File string // as it was named
	Line int    // 0: the file as a whole
	What string // what is wrong
	Text string // the offending text
	Want string // what would be right
}

// String is the line that people read: `cluster.hcl:12: what, the offending text, what would be right`. The file
// stands without its folder, as it does on every server.
func (p Problem) String() string {
	where := filepath.Base(p.File)
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, p.Line)
	}
	parts := slices.DeleteFunc([]string{p.What, p.Text, p.Want}, func(s string) bool { return s == "" })
	return where + ": " + strings.Join(parts, ", ")
}

// Problems is everything that is wrong with the file, in the order of its lines. It is never empty as an error.
type Problems []Problem

// Error gives one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err is ps as an error, nil when there is nothing to say.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// tidy sorts by line and leaves each problem once: the same text is evaluated for every node.
func (ps Problems) tidy() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.What, b.What), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(ps)
}

// pos remembers where in the file something stands, for what is found wrong with it later.
type pos struct {
	line int
	text string
}

// report collects the problems of one file.
type report struct {
	file     string
	problems Problems
}

func (r *report) add(at pos, what, want string) {
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, What: what, Text: at.text, Want: want})
}

// maxText bounds the offending text that a problem repeats.
const maxText = 80

// snippet is the first line of some source text, short and printable.
func snippet(src string) string {
	src, _, more := strings.Cut(strings.TrimSpace(src), "\n")
	runes := []rune(strings.TrimSpace(src))
	if len(runes) > maxText {
		runes, more = runes[:maxText], true
	}
	for i, c := range runes {
		if !unicode.IsPrint(c) {
			runes[i] = '?'
			if c == '\t' {
				runes[i] = ' '
			}
		}
	}
	if more {
		return string(runes) + " ..."
	}
	return string(runes)
}
