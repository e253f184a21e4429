package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	// maxFile bounds the file: a thousand volumes take a third of it.
	maxFile = 1 << 20
	// maxDepth bounds how deep braces, brackets, parentheses and templates nest; the file needs five. The parser calls
	// itself for each level, and a stack that is used up cannot be caught.
	maxDepth = 32
	// maxRun bounds how many operators follow each other, for the same reason; the file needs none.
	maxRun = 16
)

// read gives the content of the file, no more than maxFile of it.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(src) > maxFile {
		return nil, fmt.Errorf("read the configuration: %s is longer than %d bytes", path, maxFile)
	}
	return src, nil
}

// errSyntax: the tree cannot be relied on; what is wrong is reported already.
var errSyntax = errors.New("syntax")

// parse makes the syntax tree. A key that stands twice is reported, and the rest is still worth reading.
func (r *reader) parse() (*body, error) {
	start := hcl.Pos{Line: 1, Column: 1}
	tokens, _ := hclsyntax.LexConfig(r.src, r.file, start)
	if line, deep := tooDeep(tokens); deep {
		r.add(pos{line: line}, "nested too deep", fmt.Sprintf("at most %d levels are wanted", maxDepth))
		return nil, errSyntax
	}
	file, diags := hclsyntax.ParseConfig(r.src, r.file, start)
	var err error
	for _, d := range diags {
		if !r.diagnostic(d) {
			err = errSyntax
		}
	}
	if err != nil {
		return nil, err
	}
	return &body{r: r, hcl: file.Body.(*hclsyntax.Body)}, nil
}

// diagnostic reports what the parser found; ok means that the tree is whole nevertheless.
func (r *reader) diagnostic(d *hcl.Diagnostic) (ok bool) {
	at := pos{}
	if d.Subject != nil {
		at = pos{line: d.Subject.Start.Line, text: r.line(d.Subject.Start.Line)}
	}
	if d.Summary == "Attribute redefined" {
		r.add(at, "duplicate key", "each key stands once")
		return true
	}
	r.add(at, strings.ToLower(d.Summary[:1])+d.Summary[1:], snippet(d.Detail))
	return false
}

// line is one line of the source, by its number from 1.
func (r *reader) line(n int) string {
	lines := strings.SplitN(string(r.src), "\n", n+1)
	if n < 1 || n > len(lines) {
		return ""
	}
	return snippet(lines[n-1])
}

// tooDeep finds the line where the nesting goes beyond what the parser may be given.
func tooDeep(tokens hclsyntax.Tokens) (line int, deep bool) {
	depth, run := 0, 0
	for _, t := range tokens {
		run++
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth--
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
		default:
			run = 0
		}
		if depth > maxDepth || run > maxRun {
			return t.Range.Start.Line, true
		}
	}
	return 0, false
}
