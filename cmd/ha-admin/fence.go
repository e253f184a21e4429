package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

// fenceTimeout is how long is waited for fence agents, which may take a minute each, unless --timeout says otherwise.
const fenceTimeout = 5 * time.Minute

// fenceCommand is `fence NODE`, `fence confirm NODE` and `fence test NODE`.
func (a *app) fenceCommand() *cobra.Command {
	c := command("fence NODE", "have a node's machine turned off by its fence agents, and return when it is off", one, a.patient(func(ctx context.Context, c *api.Client, node string) error {
		r, err := c.Fence(ctx, node, "")
		if err != nil {
			return err
		}
		if a.output == "json" {
			return a.printJSON(r)
		}
		return a.print(oneLine(fencedText(node, r)) + "\n")
	}))
	c.AddCommand(
		command("confirm NODE", "say that you know a node's machine to be off; refused while it answers", one, func(ctx context.Context, args []string) error {
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				if err := c.FenceConfirm(ctx, args[0]); err != nil {
					return err
				}
				return a.done("node %s counts as off, by your word, until it is started anew", args[0])
			})
		}),
		command("test NODE", "ask a node's fence agents, from the server that is asked, whether they could turn it off; nothing is turned off", one, a.patient(a.fenceTest)))
	return c
}

// patient waits for agents.
func (a *app) patient(do func(ctx context.Context, c *api.Client, node string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if !a.flags.PersistentFlags().Changed("timeout") {
			a.timeout = fenceTimeout
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error { return do(ctx, c, args[0]) })
	}
}

func (a *app) fenceTest(ctx context.Context, c *api.Client, node string) error {
	t, err := c.FenceTest(ctx, node)
	if err != nil {
		return err
	}
	if a.output == "json" {
		err = a.printJSON(t)
	} else {
		err = a.print(testedTable(t))
	}
	if err == nil && !t.OK() {
		err = api.Failed("%s could not be turned off by all of its agents from %s", node, t.From)
	}
	return err
}

func testedTable(t api.FenceTested) string {
	table := newTable("LEVEL", "AGENT", "ASKED BY", "OK", "NODE IS", "TOOK", "WHY")
	for _, g := range t.Agents {
		table.row(g.Level, g.Agent, t.From, yesNo(g.OK), g.State, fmt.Sprintf("%dms", g.Ms), oneLine(g.Text))
	}
	return table.String()
}

// fencedText tells one outcome in one line.
func fencedText(node string, r api.FenceRecord) string {
	var out strings.Builder
	switch r.Word {
	case "off":
		fmt.Fprintf(&out, "node %s was turned off by the agents of level %d, run by %s", node, r.Level, r.By)
		if r.Unverified {
			out.WriteString("; one of them has no status, so its word is all there is")
		}
	case "confirmed":
		fmt.Fprintf(&out, "node %s is off by the word of %s", node, r.Person)
	case "begun":
		fmt.Fprintf(&out, "node %s is being turned off by %s", node, r.By)
	case "failed":
		fmt.Fprintf(&out, "node %s could not be turned off by %s, %d tries failed", node, r.By, r.Failed)
	case "refuted":
		fmt.Fprintf(&out, "node %s was said to be off and has answered since", node)
	default:
		fmt.Fprintf(&out, "node %s was not turned off", node)
	}
	fmt.Fprintf(&out, ", at %s", r.At.UTC().Format(time.RFC3339))
	if r.Text != "" {
		out.WriteString(": " + r.Text)
	}
	return out.String()
}

// fencingText is what a status shows of fencing; empty: nothing is configured, and nobody was ever to be fenced.
func fencingText(st *api.Status) string {
	table, lines := newTable("FENCE", "LEVEL", "AGENT"), []string{}
	any := false
	for _, n := range st.Nodes {
		if n.Fence == nil {
			continue
		}
		any = true
		for _, d := range n.Fence.Devices {
			agent := d.Agent
			if d.Missing {
				agent += " (not installed on this server)"
			}
			table.row(n.Name, d.Level, agent)
		}
		if r := n.Fence.Last; r != nil {
			lines = append(lines, "  last: "+oneLine(fencedText(n.Name, *r)))
		}
		if len(n.Fence.Waits) > 0 {
			lines = append(lines, "  "+oneLine(fmt.Sprintf("%s is neither fenced nor confirmed to be off: nobody serves %s until then", n.Name, strings.Join(n.Fence.Waits, ", "))))
		}
	}
	if !any {
		return ""
	}
	text := "\n"
	if st.Fencing != "" {
		text += "fencing is " + oneLine(st.Fencing) + ": nobody follows a primary that was neither fenced nor confirmed to be off\n"
	}
	text += table.String()
	for _, l := range lines {
		text += l + "\n"
	}
	return text
}
