package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
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

// sorted orders them by line.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.What, b.What), cmp.Compare(a.Text, b.Text))
	})
	return ps
}

// pos remembers where in the file something stands, for what is found wrong with it later.
type pos struct {
	line int
	text string
}

// maxProblems bounds what is told at once; nobody corrects more in one go.
const maxProblems = 200

// report collects the problems of one file, each once: the same text is evaluated for every node.
type report struct {
	file     string
	problems Problems
	seen     map[Problem]bool
}

func (r *report) add(at pos, what, want string) {
	p := Problem{File: r.file, Line: at.line, What: what, Text: at.text, Want: want}
	if r.full() || r.seen[p] {
		return
	}
	if r.seen == nil {
		r.seen = map[Problem]bool{}
	}
	r.seen[p] = true
	r.problems = append(r.problems, p)
	if r.full() {
		r.problems = append(r.problems, Problem{File: r.file, What: "more problems than are shown", Want: "correct the others first"})
	}
}

// full: what else is found will not be told.
func (r *report) full() bool { return len(r.problems) >= maxProblems }

// addValue also tells what a string with variables in it came to.
func (r *report) addValue(v value, what, want string) {
	if strings.Contains(v.at.text, "${") {
		want += ": here it is " + snippet(strconv.Quote(v.s))
	}
	r.add(v.at, what, want)
}

// maxText bounds the offending text that a problem repeats.
const maxText = 80

// snippet is the first line of some source text, short and printable.
func snippet(src string) string { return shorten(src, maxText) }

func shorten(src string, most int) string {
	src, _, more := strings.Cut(strings.TrimSpace(src), "\n")
	runes := []rune(strings.TrimSpace(src))
	if len(runes) > most {
		runes, more = runes[:most], true
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
