package main

import (
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"p"}
go: downloading something
{"Action":"run","Package":"p","Test":"TestFine"}
{"Action":"output","Package":"p","Test":"TestFine","Output":"=== RUN   TestFine\n"}
{"Action":"output","Package":"p","Test":"TestFine","Output":"    p_test.go:1: nobody asks\n"}
{"Action":"pass","Package":"p","Test":"TestFine"}
{"Action":"output","Package":"p","Test":"TestAway","Output":"=== RUN   TestAway\n"}
{"Action":"output","Package":"p","Test":"TestAway","Output":"    p_test.go:2: it takes root\n"}
{"Action":"output","Package":"p","Test":"TestAway","Output":"--- SKIP: TestAway (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestAway"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    p_test.go:3: it is bad\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"output","Package":"q","Test":"TestOfAnother","Output":"is under way\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1s\n"}
{"Action":"fail","Package":"p"}
{"Action":"pass","Package":"q","Test":"TestOfAnother"}
{"Action":"output","Package":"q","Output":"PASS\n"}
{"Action":"output","Package":"q","Output":"ok  \tq\t1s\n"}
{"Action":"pass","Package":"q"}
{"Action":"build-output","ImportPath":"r","Output":"r.go:1: syntax error\n"}
{"Action":"build-fail","ImportPath":"r"}`

func TestReport(t *testing.T) {
	var out, skips strings.Builder
	if err := report(strings.NewReader(events), &out, &skips); err != nil {
		t.Fatal(err)
	}
	const want = `go: downloading something
    p_test.go:3: it is bad
--- FAIL: TestBad (0.00s)
FAIL	p	1s
panic: test timed out
ok  	q	1s
r.go:1: syntax error
`
	if out.String() != want {
		t.Errorf("it prints\n%s\nwant\n%s", out.String(), want)
	}
	if got, want := skips.String(), "TestAway (p): p_test.go:2: it takes root\n"; got != want {
		t.Errorf("skipped: %q, want %q", got, want)
	}
}
