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
	// Files of a fraction of the greatest length, and a stack of a smaller fraction of the usual gigabyte.
	const scale = 50
	defer debug.SetMaxStack(debug.SetMaxStack(500_000_000 / scale))
	loop := "[for a in [1,2,3,4,5,6,7,8,9] : "
	tests := map[string]string{
		"brackets":     "a = " + strings.Repeat("[", 500_000/scale),
		"parentheses":  "a = " + strings.Repeat("(", 500_000/scale),
		"braces":       strings.Repeat("a {\n", 200_000/scale),
		"templates":    "a = " + strings.Repeat(`"${`, 300_000/scale),
		"not":          "a = " + strings.Repeat("!", 900_000/scale) + "true\n",
		"minus":        "a = " + strings.Repeat("-", 900_000/scale) + "1\n",
		"conditionals": "a = " + strings.Repeat("true ? 1 : ", 90_000/scale) + "1\n",
		"nested ifs":   "a = " + strings.Repeat("true ? ", 130_000/scale) + "1\n",
		"operators":    "a = 1" + strings.Repeat("+1", 400_000/scale) + "\n",
		"loops":        "cluster \"x\" { rto = " + strings.Repeat(loop, 20) + "a" + strings.Repeat("]", 20) + " }\n",
		"attributes":   "a = b" + strings.Repeat(".c", 400_000/scale) + "\n",
		"indices":      "a = b" + strings.Repeat("[0]", 300_000/scale) + "\n",
		"splats":       "a = b" + strings.Repeat("[*]", 300_000/scale) + "\n",
		"lines":        strings.Repeat("a = 1\n", 150_000/scale),
		"blocks":       strings.Repeat("v \"\" {}\n", 100_000/scale),
		"nodes":        strings.Repeat("node \"a\" {}\n", 80_000/scale),
	}
	for name, src := range tests {
		t.Run(name, func(t *testing.T) {
			if len(src) > MaxFile/scale {
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
