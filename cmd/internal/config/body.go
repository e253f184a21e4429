package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// reader turns the syntax tree of one file into values.
type reader struct {
	report
	src []byte
}

// body reads one block by asking for everything that it may hold; finish refuses what was not asked for. So what the
// decoders ask is the schema, and there is no second list to keep in step.
type body struct {
	r      *reader
	hcl    *hclsyntax.Body
	kind   string
	label  string
	second string // of a pair
	at     pos    // the block's header
	vars   scope
	keys   []string // asked for
	kinds  []string // asked for
	never  []string // refused already
}

// value is a string of the file and where it stands; set tells an empty one from an absent one.
type value struct {
	s   string
	at  pos
	set bool
}

func (b *body) attr(key string) *hclsyntax.Attribute {
	b.keys = append(b.keys, key)
	return b.hcl.Attributes[key]
}

func (b *body) posOf(n hclsyntax.Node) pos {
	rng := n.Range()
	return pos{line: rng.Start.Line, text: snippet(string(rng.SliceBytes(b.r.src)))}
}

// str reads an optional string; example is one that would be right.
func (b *body) str(key, example string) value {
	a := b.attr(key)
	if a == nil {
		return value{at: b.at}
	}
	s, ok := b.text(a.Expr, b.posOf(a), fmt.Sprintf("a string is wanted, such as %s = %q", key, example))
	return value{s: s, at: b.posOf(a), set: ok}
}

// need is str for a key that must be there.
func (b *body) need(key, example string) value {
	v := b.str(key, example)
	if b.hcl.Attributes[key] == nil {
		b.r.add(b.at, "missing key "+key, fmt.Sprintf("it needs one such as %s = %q", key, example))
	}
	return v
}

// choice reads a string that is one of options; the first is the default.
func (b *body) choice(key string, options ...string) (string, pos) {
	v := b.str(key, options[0])
	if !v.set {
		return options[0], v.at
	}
	if !slices.Contains(options, v.s) {
		b.r.add(v.at, "unknown "+key, "one of these is wanted: "+strings.Join(options, ", "))
		return options[0], v.at
	}
	return v.s, v.at
}

// strs reads an optional list of strings.
func (b *body) strs(key, example string) []value {
	a := b.attr(key)
	if a == nil {
		return nil
	}
	want := fmt.Sprintf("a list of strings is wanted, such as %s = [%q]", key, example)
	list, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		b.r.add(b.posOf(a), "wrong type", want)
		return nil
	}
	var out []value
	for _, e := range list.Exprs {
		if s, ok := b.text(e, b.posOf(e), want); ok {
			out = append(out, value{s: s, at: b.posOf(e), set: true})
		}
	}
	return out
}

// number reads an optional whole number above zero.
func (b *body) number(key string, otherwise int) (int, pos) {
	a := b.attr(key)
	if a == nil {
		return otherwise, b.at
	}
	if n, ok := wholeNumber(a.Expr); ok && n > 0 {
		return n, b.posOf(a)
	}
	b.r.add(b.posOf(a), "wrong value", fmt.Sprintf("a whole number above zero is wanted, without quotes: %s = 1", key))
	return otherwise, b.posOf(a)
}

// blocks returns the inner blocks of the given kinds in the order of the file. named tells whether they bear a name.
func (b *body) blocks(named bool, kinds ...string) []*body {
	b.kinds = append(b.kinds, kinds...)
	var out []*body
	for _, inner := range b.hcl.Blocks {
		if slices.Contains(kinds, inner.Type) {
			if sub := b.enter(inner, named); sub != nil {
				out = append(out, sub)
			}
		}
	}
	return out
}

// pairs returns the inner blocks of a kind that bear two names.
func (b *body) pairs(kind string) []*body {
	b.kinds = append(b.kinds, kind)
	var out []*body
	for _, inner := range b.hcl.Blocks {
		if inner.Type != kind {
			continue
		}
		if len(inner.Labels) != 2 {
			b.r.add(header(inner), "wrong number of names", fmt.Sprintf("two names in quotes are wanted: %s \"alpha\" \"beta\" { ... }", kind))
			continue
		}
		out = append(out, &body{r: b.r, hcl: inner.Body, kind: kind, at: header(inner), vars: b.vars, label: inner.Labels[0], second: inner.Labels[1]})
	}
	return out
}

// enter checks the labels of an inner block and opens it.
func (b *body) enter(inner *hclsyntax.Block, named bool) *body {
	sub := &body{r: b.r, hcl: inner.Body, kind: inner.Type, at: header(inner), vars: b.vars}
	switch n := len(inner.Labels); {
	case named && n != 1:
		b.r.add(sub.at, "wrong number of names", fmt.Sprintf("one name in quotes is wanted: %s \"name\" { ... }", inner.Type))
		return nil
	case !named && n != 0:
		b.r.add(sub.at, "a name that is not wanted here", fmt.Sprintf("%s { ... }", inner.Type))
		return nil
	case named:
		sub.label = inner.Labels[0]
	}
	return sub
}

// one returns the only inner block of a kind, or nil when there is none. More than one is refused.
func (b *body) one(named bool, kind string) *body {
	all := b.blocks(named, kind)
	if len(all) == 0 {
		return nil
	}
	for _, other := range all[1:] {
		b.r.add(other.at, "duplicate block", fmt.Sprintf("the one in line %d is enough", all[0].at.line))
	}
	return all[0]
}

// refuse answers a key that may well be expected here, but has no place, with its own words.
func (b *body) refuse(key, what, want string) {
	b.never = append(b.never, key)
	if a := b.hcl.Attributes[key]; a != nil {
		b.r.add(b.posOf(a), what, want)
	}
}

// has reports whether there is an inner block of a kind, a wrong one included.
func (b *body) has(kind string) bool {
	return slices.ContainsFunc(b.hcl.Blocks, func(inner *hclsyntax.Block) bool { return inner.Type == kind })
}

// finish refuses the keys and blocks that nobody asked for.
func (b *body) finish() {
	for name, a := range b.hcl.Attributes {
		switch {
		case slices.Contains(b.kinds, name):
			b.r.add(b.posOf(a), "a block written as a key", name+" { ... } is wanted, without the equals sign")
		case !slices.Contains(b.keys, name) && !slices.Contains(b.never, name):
			b.r.add(b.posOf(a), "unknown key", "known here: "+known(b.keys))
		}
	}
	for _, inner := range b.hcl.Blocks {
		switch {
		case slices.Contains(b.keys, inner.Type):
			b.r.add(header(inner), "a key written as a block", inner.Type+" = ... is wanted, with an equals sign")
		case !slices.Contains(b.kinds, inner.Type):
			b.r.add(header(inner), "unknown block", "known here: "+known(b.kinds))
		}
	}
}

func known(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// header is where a block begins and how it is named: `volume "pgdata"`.
func header(b *hclsyntax.Block) pos {
	text := b.Type
	for _, l := range b.Labels {
		text += fmt.Sprintf(" %q", l)
	}
	return pos{line: b.TypeRange.Start.Line, text: snippet(text)}
}
