package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hacluster/cmd/internal/lab/topology"
)

const defaultLab = "lab"

// call is one invocation of a command: its flags and words, flags before, between or after the words.
type call struct {
	lab            string
	bin            string
	plain, disks   bool
	mode, op       string
	witnesses      int
	link           string
	port           int
	on, off, lasts time.Duration
	delay, jitter  time.Duration
	double         int
	out            string
	seed           uint64
	minutes, count int
	tries          int
	keep           bool
	words          []string
	stdout, stderr io.Writer
}

func newCall(name string, args []string, stdout, stderr io.Writer) (*call, error) {
	c := &call{stdout: stdout, stderr: stderr}
	f := flag.NewFlagSet("lab "+name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.lab, "lab", defaultLab, "`name` of the lab; of a run: its own, named after the process")
	f.StringVar(&c.bin, "bin", "", "`folder` of haclusterd and ha-admin (default: where this program is)")
	f.BoolVar(&c.plain, "plain", false, "without TLS")
	f.BoolVar(&c.disks, "disks", false, "the nodes' files lie on disks that can lose power, fail and hang")
	f.StringVar(&c.mode, "mode", "drop", "what becomes of unflushed writes: drop, random or torn")
	f.StringVar(&c.op, "op", "", "operation that a disk's fault concerns: read, write or flush; default each")
	f.IntVar(&c.witnesses, "witnesses", 1, "how many witnesses: 1 or 3")
	f.StringVar(&c.link, "link", "", "one `network` only: hb1, hb2, repl or client")
	f.IntVar(&c.port, "port", 0, "one TCP or UDP `port` only: 7400 block data and Raft, 7401 gossip, 10809 NBD")
	f.DurationVar(&c.on, "on", time.Second, "how long a flapping cable works")
	f.DurationVar(&c.off, "off", time.Second, "how long it does not")
	f.DurationVar(&c.lasts, "for", 10*time.Second, "how long it flaps")
	f.DurationVar(&c.delay, "delay", 20*time.Millisecond, "of the frames that are not sent at once")
	f.DurationVar(&c.jitter, "jitter", 0, "more delay, up to this, at random")
	f.IntVar(&c.double, "double", 0, "how many of a hundred frames arrive twice")
	f.StringVar(&c.out, "out", "", "`folder` for results.md, results.json and what failed runs left")
	f.Uint64Var(&c.seed, "seed", 0, "seed of what is random; 0: a new one, which is printed")
	f.IntVar(&c.minutes, "minutes", 10, "how long a soak takes")
	f.IntVar(&c.count, "count", 100, "how many failovers, or double faults")
	f.IntVar(&c.tries, "tries", 5, "how often a mutant's scenarios are run until one notices")
	f.BoolVar(&c.keep, "keep", false, "leave the lab of a run up")
	for rest := args; ; {
		if err := f.Parse(rest); err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		rest = f.Args()
		if len(rest) == 0 {
			return c, nil
		}
		if name == "exec" { // what follows the node is another program's
			c.words = rest
			return c, nil
		}
		c.words, rest = append(c.words, rest[0]), rest[1:]
	}
}

// want fails unless there are as many words as names; a name with "..." stands for one or more.
func (c *call) want(names ...string) error {
	more := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
	if len(c.words) == len(names) || more && len(c.words) > len(names) {
		return nil
	}
	return fmt.Errorf("%w: wanted: %s", errUsage, strings.Join(names, " "))
}

// open finds the lab.
func (c *call) open() (*topology.Lab, error) { return topology.Open(c.lab) }

// number reads the word i, which may carry a unit at its end.
func (c *call) number(i int, unit string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(c.words[i], unit))
	if err != nil {
		return 0, fmt.Errorf("%w: %q is not a number of %s", errUsage, c.words[i], unit)
	}
	return n, nil
}

// config is that of a new lab.
func (c *call) config() (cfg topology.Config, err error) {
	self, err := os.Executable()
	if err != nil {
		return cfg, err
	}
	cfg = topology.Config{Tools: filepath.Dir(self), Bin: filepath.Dir(self), Plain: c.plain, Witnesses: c.witnesses, Disks: c.disks}
	if c.bin != "" {
		cfg.Bin, err = filepath.Abs(c.bin)
	}
	return cfg, err
}
