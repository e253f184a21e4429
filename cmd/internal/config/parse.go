package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	// MaxFile bounds the file in bytes: a thousand volumes take a third of it.
	MaxFile = 1 << 20
	// maxDepth bounds how deep braces, brackets, parentheses and templates nest; the file needs five. The parser calls
	// itself for each level, and a stack that is used up cannot be caught.
	maxDepth = 32
	// maxChain bounds the operators, dots and indices of one expression, for the same reason; the file needs a dot for
	// each variable.
	maxChain = 256
)

// read gives the content of the file, no more than MaxFile of it.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(src) > MaxFile {
		return nil, fmt.Errorf("read the configuration: %s is longer than %d bytes", path, MaxFile)
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
		r.add(pos{line: line}, "nested too deep", "plain values are wanted: strings, lists and maps of strings")
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
		at = pos{line: d.Subject.Start.Line, text: r.line(d.Subject.Start.Byte)}
	}
	if d.Summary == "Attribute redefined" {
		r.add(at, "duplicate key", "each key stands once")
		return true
	}
	r.add(at, lowerFirst(d.Summary), strings.TrimSuffix(lowerFirst(shorten(d.Detail, 4*maxText)), "."))
	return false
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// line is the line of the source around an offset.
func (r *reader) line(offset int) string {
	offset = min(offset, len(r.src))
	before, after := r.src[:offset], r.src[offset:]
	if i := bytes.LastIndexByte(before, '\n'); i >= 0 {
		before = before[i+1:]
	}
	if i := bytes.IndexByte(after, '\n'); i >= 0 {
		after = after[:i]
	}
	return snippet(string(before) + string(after))
}

// tooDeep finds the line where the nesting goes beyond what the parser may be given. Operators, dots and indices nest
// too, until a comma, an equals sign or a brace begins another expression.
func tooDeep(tokens hclsyntax.Tokens) (line int, deep bool) {
	depth, chain := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
			hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenOBrack:
			depth++
			chain++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth--
		case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit,
			hclsyntax.TokenNewline, hclsyntax.TokenComment, hclsyntax.TokenColon:
		default:
			chain++
		}
		switch t.Type {
		case hclsyntax.TokenComma, hclsyntax.TokenEqual, hclsyntax.TokenOBrace:
			chain = 0
		}
		if depth > maxDepth || chain > maxChain {
			return t.Range.Start.Line, true
		}
	}
	return 0, false
}
