package agent

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Bounds of what is configured and said.
const (
	MaxOptions  = 64        // of an agent
	MaxOption   = 1 << 10   // bytes of a name or value
	maxOutput   = 2 << 10   // bytes of each output that are kept
	maxMetadata = 256 << 10 // bytes of an agent's description of itself
)

// fileSuffix ends the name of an option whose value is the path of a file: the agent gets the file's first line, as the option without
// this ending. Only of secrets: other agents' own options end so too.
const fileSuffix = "_file"

// IsSecret reports whether an option's value is not to be shown.
func IsSecret(name string) bool {
	n := strings.ToLower(name)
	if strings.HasSuffix(n, "_script") || strings.HasSuffix(n, fileSuffix) {
		return false // a path
	}
	return slices.ContainsFunc([]string{"pass", "secret", "token", "community", "apikey", "api_key", "access_key"}, func(s string) bool { return strings.Contains(n, s) })
}

// SecretFile is the option that the agent gets in the place of name, whose value is a path; not ok: name is an option like any other.
func SecretFile(name string) (option string, ok bool) {
	option, ok = strings.CutSuffix(name, fileSuffix)
	return option, ok && IsSecret(option)
}

// BadOption says what is wrong with an option, and what is wanted; empty: nothing.
func BadOption(name, value string) string {
	switch {
	case name == "" || strings.ContainsFunc(name, func(c rune) bool { return c > '~' || c <= ' ' || c == '=' || c == '#' }):
		return "a name of letters, digits, - and _ is wanted"
	case name == "action" || name == "nodename" || name == "option":
		return "leave it out: the daemon gives it"
	case len(name) > MaxOption || len(value) > MaxOption:
		return fmt.Sprintf("at most %d bytes are wanted", MaxOption)
	case strings.ContainsFunc(value, unicode.IsControl):
		return "a value of one line is wanted: an agent reads name=value lines"
	case strings.TrimSpace(value) != value:
		return "a value without spaces around it is wanted: agents cut them off"
	}
	return ""
}

// resolved are the options as the agent gets them, and the values that are secret.
func resolved(options map[string]string) (out map[string]string, secret []string, err error) {
	out = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		if option, ok := SecretFile(name); ok {
			if value, err = firstLine(value); err != nil {
				return nil, nil, fmt.Errorf("option %s: %w", name, err)
			}
			name = option
		}
		if why := BadOption(name, value); why != "" {
			return nil, nil, fmt.Errorf("option %s: %s", name, why)
		}
		if IsSecret(name) && value != "" {
			secret = append(secret, value)
		}
		out[name] = value
	}
	return out, secret, nil
}

// firstLine reads a secret. A file that everybody can read keeps none. A pipe is not waited for.
func firstLine(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file", path)
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("everybody can read or write %s, mode %#o: chmod 600 it", path, info.Mode().Perm())
	}
	b := make([]byte, MaxOption+2)
	n, _ := f.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	line = strings.TrimRight(line, "\r")
	if line == "" {
		return "", fmt.Errorf("%s has no first line", path)
	}
	return line, nil
}

// input is what the agent reads.
func input(o order, options map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(options)) {
		fmt.Fprintf(&b, "%s=%s\n", name, options[name])
	}
	fmt.Fprintf(&b, "nodename=%s\naction=%s\n", o.Node, o.Action)
	return b.String()
}

// say makes what an agent said fit for people: one line, without what is secret.
func say(secret []string, outputs ...string) string {
	var lines []string
	for _, out := range outputs {
		isCut := len(out) >= maxOutput
		for _, s := range secret {
			out = strings.ReplaceAll(out, s, "***")
		}
		for _, s := range secret {
			if isCut { // perhaps in the middle of a secret
				out = withoutPart(out, s)
			}
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, strings.Join(lines, "; "))
}

// withoutPart takes away what may be the end of a secret at the beginning of a text, or its beginning at the end.
func withoutPart(out, secret string) string {
	for n := len(secret) - 1; n > 0; n-- {
		if cut, ok := strings.CutPrefix(out, secret[len(secret)-n:]); ok {
			out = cut
			break
		}
	}
	for n := len(secret) - 1; n > 0; n-- {
		if cut, ok := strings.CutSuffix(out, secret[:n]); ok {
			return cut
		}
	}
	return out
}

// actionsOf reads which actions an agent has from its description of itself.
func actionsOf(text string) (names []string, err error) {
	var m struct {
		Actions []struct {
			Name string `xml:"name,attr"`
		} `xml:"actions>action"`
	}
	if err := xml.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	for _, a := range m.Actions {
		names = append(names, a.Name)
	}
	if len(names) == 0 {
		return nil, errors.New("metadata: it lists no action")
	}
	return names, nil
}
