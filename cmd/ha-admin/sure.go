package main

import (
	"bufio"
	"io"
	"strings"

	"hacluster/cmd/internal/api"
)

// sure asks on the terminal, or whatever standard input is. Any answer but yes is a refusal, as is nobody to ask: the exit code
// is 3, for what would be done lacks consent, and the flag that gives it is --yes.
func (a *app) sure(question string) error {
	if a.output == "json" {
		return api.Refused("nothing is done: with -o json nobody is asked: consent with --yes")
	}
	if err := a.print(question); err != nil {
		return err
	}
	answer, _ := bufio.NewReader(io.LimitReader(a.in, 64)).ReadString('\n')
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "yes" && s != "y" {
		return api.Refused("nothing is done: the answer was %q: say yes, or use --yes", strings.TrimSpace(answer))
	}
	return nil
}
