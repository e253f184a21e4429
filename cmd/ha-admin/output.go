package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printJSON prints a value as a script reads it.
func (a *app) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.print(string(text) + "\n")
}

// printDocument prints JSON that a node wrote, with every key that it wrote.
func (a *app) printDocument(doc []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(doc), "", "  "); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return a.print(out.String() + "\n")
}

func (a *app) print(text string) error {
	_, err := io.WriteString(a.out, text)
	return err
}

// done prints what was done, for a person; scripts look at the exit code.
func (a *app) done(format string, args ...any) error {
	if a.output == "json" {
		return a.printJSON(map[string]string{"result": fmt.Sprintf(format, args...)})
	}
	return a.print(fmt.Sprintf(format, args...) + "\n")
}

// table lines up columns.
type table struct {
	buf bytes.Buffer
	w   *tabwriter.Writer
}

func newTable(columns ...string) *table {
	t := &table{}
	t.w = tabwriter.NewWriter(&t.buf, 0, 8, 2, ' ', 0)
	if len(columns) > 0 {
		t.row(toAny(columns)...)
	}
	return t
}

func toAny(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}

// row adds one; an empty cell shows as "-".
func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if texts[i] = printable(fmt.Sprint(c)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

func (t *table) String() string {
	t.w.Flush()
	return t.buf.String()
}

// sizeText shows bytes to a person.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i]
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
