// Command testreport reads what `go test -json` tells and prints what go test prints without -v: a line for each package, and
// all that a failed test said. Which tests were skipped, and why, it appends to the file -skips, a line for each, so that
// nobody takes a skip for a pass. scripts/test.sh calls it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	path := flag.String("skips", "", "file to which the skipped tests are appended")
	flag.Parse()
	skips, err := os.OpenFile(*path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(report(os.Stdin, os.Stdout, skips), skips.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

// event is a line of go test -json: see go doc cmd/test2json.
type event struct{ Action, Package, Test, Output string }

type test struct{ pkg, name string }

// report ends with in. The writers get whole lines.
func report(in io.Reader, out, skips io.Writer) error {
	said := map[test]string{} // by tests that have not ended
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := tell(line, said, out, skips); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func tell(line []byte, said map[test]string, out, skips io.Writer) (err error) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		_, err = out.Write(line) // go's own words
		return err
	}
	t := test{e.Package, e.Test}
	switch {
	case e.Output != "" && e.Test != "":
		said[t] += e.Output
		return nil
	case e.Output != "" && e.Output != "PASS\n":
		_, err = io.WriteString(out, e.Output)
	case e.Action == "skip" && e.Test != "":
		_, err = fmt.Fprintf(skips, "%s (%s): %s\n", e.Test, e.Package, reason(said[t]))
	case e.Action == "fail" && e.Test != "":
		_, err = io.WriteString(out, said[t])
	case e.Action == "fail": // of the whole package: those that it ended in are not said to have failed
		for left, text := range said {
			if left.pkg == e.Package {
				_, werr := io.WriteString(out, text)
				err = errors.Join(err, werr)
				delete(said, left)
			}
		}
	}
	if e.Action == "pass" || e.Action == "skip" || e.Action == "fail" {
		delete(said, t)
	}
	return err
}

// reason is what a skipped test said, without what the testing package says of it.
func reason(said string) string {
	var words []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}
