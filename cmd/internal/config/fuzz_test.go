package config

import (
	"errors"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// FuzzConfig: whatever a file holds, the answer is a configuration that can be shown, or lines that say what is wrong.
func FuzzConfig(f *testing.F) {
	for _, path := range []string{"testdata/sample.hcl", "testdata/loopback.hcl"} {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("cluster \"a\" {\n rto = <<E\n3s\nE\n}"))
	f.Add([]byte("a = [for x in [1] : [for y in [x] : y]]\n"))
	f.Add([]byte("%{ if true }\n"))
	f.Add([]byte("\xff\xfe\x00"))
	f.Fuzz(func(t *testing.T, src []byte) {
		rep, err := check("cluster.hcl", src, Options{Node: "alpha"})
		if err == nil {
			if rep.Config.Document().Table() == "" || rep.Config.Hash() == "" {
				t.Fatal("a good configuration cannot be shown")
			}
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) == 0 {
			t.Fatalf("%T: %v", err, err)
		}
		for _, p := range ps {
			line := p.String()
			if p.What == "" || !strings.HasPrefix(line, "cluster.hcl:") || strings.ContainsAny(line, "\n\r\x00\x1b") {
				t.Fatalf("unusable line %q", line)
			}
		}
	})
}

// What would use up the parser's stack, or time without bound, ends with a line instead.
func TestHostileFilesEndSoon(t *testing.T) {
	// A stack smaller than the usual one in proportion, for files of a tenth of the greatest length.
	defer debug.SetMaxStack(debug.SetMaxStack(50_000_000))
	loop := "[for a in [1,2,3,4,5,6,7,8,9] : "
	tests := map[string]string{
		"brackets":     "a = " + strings.Repeat("[", 50000),
		"parentheses":  "a = " + strings.Repeat("(", 50000),
		"braces":       strings.Repeat("a {\n", 20000),
		"templates":    "a = " + strings.Repeat(`"${`, 30000),
		"not":          "a = " + strings.Repeat("!", 90000) + "true\n",
		"minus":        "a = " + strings.Repeat("-", 90000) + "1\n",
		"conditionals": "a = " + strings.Repeat("true ? 1 : ", 9000) + "1\n",
		"nested ifs":   "a = " + strings.Repeat("true ? ", 13000) + "1\n",
		"operators":    "a = 1" + strings.Repeat("+1", 40000) + "\n",
		"loops":        "cluster \"x\" { rto = " + strings.Repeat(loop, 20) + "a" + strings.Repeat("]", 20) + " }\n",
		"attributes":   "a = b" + strings.Repeat(".c", 40000) + "\n",
		"indices":      "a = b" + strings.Repeat("[0]", 30000) + "\n",
		"splats":       "a = b" + strings.Repeat("[*]", 30000) + "\n",
		"lines":        strings.Repeat("a = 1\n", 15000),
		"blocks":       strings.Repeat("v \"\" {}\n", 10000),
		"nodes":        strings.Repeat("node \"a\" {}\n", 8000),
	}
	for name, src := range tests {
		t.Run(name, func(t *testing.T) {
			if len(src) > maxFile/10 {
				t.Fatalf("the file has %d bytes and is refused for that alone", len(src))
			}
			_, err := check("cluster.hcl", []byte(src), Options{})
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("%T: %v", err, err)
			}
		})
	}
}
