package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// scope holds the variables that exist at some place of the file, by their full name ("node.name").
type scope map[string]string

// with is the scope with more variables in it.
func (s scope) with(more scope) scope {
	out := maps.Clone(s)
	if out == nil {
		out = scope{}
	}
	maps.Copy(out, more)
	return out
}

// nodeScope is what a node's own values may use. Names and addresses that were refused already count as something
// harmless, so that one mistake is told once and not again wherever it is used.
func nodeScope(n Node) scope {
	host := hostOf(n.Address)
	if _, want := parseEndpoint(n.Address); want != "" {
		host = refusedHost
	}
	return scope{"node.name": usableName(n.Name), "node.host": host}
}

func volumeScope(name string) scope { return scope{"volume.name": usableName(name)} }

func usableName(name string) string {
	if nameForm.MatchString(name) {
		return name
	}
	return "invalid"
}

func (s scope) String() string {
	names := slices.Sorted(maps.Keys(s))
	for i, n := range names {
		names[i] = "${" + n + "}"
	}
	return known(names)
}

// text evaluates an expression that must be a string. It walks the syntax tree itself instead of asking HCL for the
// value: HCL would turn numbers and booleans into strings in silence, and would run functions, loops and arithmetic
// that this file has no use for. at and want describe the whole key when the type is wrong.
func (b *body) text(e hclsyntax.Expression, at pos, want string) (string, bool) {
	switch e := e.(type) {
	case *hclsyntax.TemplateExpr:
		return b.join(e.Parts, at, want)
	case *hclsyntax.TemplateWrapExpr:
		return b.text(e.Wrapped, at, want)
	case *hclsyntax.ParenthesesExpr:
		return b.text(e.Expression, at, want)
	case *hclsyntax.ScopeTraversalExpr:
		return b.variable(e.Traversal, at)
	case *hclsyntax.LiteralValueExpr:
		if e.Val.Type() == cty.String && e.Val.IsKnown() && !e.Val.IsNull() {
			return b.printable(e.Val.AsString(), at)
		}
	}
	b.r.add(at, "wrong type", want)
	return "", false
}

func (b *body) join(parts []hclsyntax.Expression, at pos, want string) (string, bool) {
	var out strings.Builder
	for _, p := range parts {
		s, ok := b.text(p, at, want)
		if !ok {
			return "", false
		}
		out.WriteString(s)
	}
	return out.String(), true
}

// printable refuses control characters: no name, path or address of this file has one, and they would end up in logs,
// on terminals and in system calls that end a string at a zero byte.
func (b *body) printable(s string, at pos) (string, bool) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		b.r.add(at, "control character in a string", "printable characters only, on one line")
		return "", false
	}
	return s, true
}

func (b *body) variable(t hcl.Traversal, at pos) (string, bool) {
	name := t.RootName()
	for _, step := range t[1:] {
		if a, ok := step.(hcl.TraverseAttr); ok {
			name += "." + a.Name
		} else {
			name += "[...]"
		}
	}
	if v, ok := b.vars[name]; ok {
		return v, true
	}
	b.r.add(at, fmt.Sprintf("unknown variable ${%s}", name), "known here: "+b.vars.String()+"; a string stands in quotes")
	return "", false
}

// wholeNumber is the value of a literal number that is one.
func wholeNumber(e hclsyntax.Expression) (int, bool) {
	lit, ok := e.(*hclsyntax.LiteralValueExpr)
	if !ok || lit.Val.IsNull() || lit.Val.Type() != cty.Number {
		return 0, false
	}
	n, exact := lit.Val.AsBigFloat().Int64()
	return int(n), exact == 0
}

// truth reads an optional true or false; false without one.
func (b *body) truth(key string) bool {
	a := b.attr(key)
	if a == nil {
		return false
	}
	if lit, ok := a.Expr.(*hclsyntax.LiteralValueExpr); ok && !lit.Val.IsNull() && lit.Val.Type() == cty.Bool {
		return lit.Val.True()
	}
	b.r.add(b.posOf(a), "wrong type", fmt.Sprintf("true or false is wanted, without quotes: %s = true", key))
	return false
}

// dict reads an optional map of strings. Values of keys that look like secrets never stand in a message.
func (b *body) dict(key string) map[string]string {
	a := b.attr(key)
	if a == nil {
		return nil
	}
	want := fmt.Sprintf("a map of strings is wanted, such as %s = { ip = \"10.9.0.1\" }", key)
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		b.r.add(pos{line: a.SrcRange.Start.Line, text: key}, "wrong type", want)
		return nil
	}
	out := map[string]string{}
	for _, item := range obj.Items {
		b.dictItem(out, item, want)
	}
	return out
}

func (b *body) dictItem(out map[string]string, item hclsyntax.ObjectConsItem, want string) {
	at := b.posOf(item.KeyExpr)
	name := hcl.ExprAsKeyword(item.KeyExpr)
	if name == "" {
		var ok bool
		if name, ok = b.text(keyOf(item.KeyExpr), at, want); !ok {
			return
		}
	}
	if _, twice := out[name]; twice {
		b.r.add(at, "duplicate key", "each key stands once")
		return
	}
	if s, ok := b.text(item.ValueExpr, at, want); ok {
		out[name] = s
	}
}

func keyOf(e hclsyntax.Expression) hclsyntax.Expression {
	if k, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		return k.Wrapped
	}
	return e
}
