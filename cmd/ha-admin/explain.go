package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

// rules says what stands behind a kind of event: the rule, and what it means for who reads it at night.
var rules = map[string]string{
	"promoted":           "A node becomes primary only after the last lease has surely ended (R10), with what its replica said after that (R25), by one entry of the log bound to the leader's term (R7). The reason in brackets is why its copy was the right one.",
	"member dropped":     "Who does not answer in time leaves the in-sync set by a committed entry before anything is acknowledged without it (R4). It is no candidate until it was resynced and admitted.",
	"member admitted":    "A replica is a member again when it has all that was acknowledged, compared and copied (R5, R17); from that entry on a write waits for it.",
	"role given up":      "A primary whose own disk cannot be relied on does not answer for it: another member follows (R23, R30).",
	"disk failed":        "A write or flush that failed may have left anything behind: the replica counts for nothing until it was resynced (R23).",
	"disk stalled":       "A disk that does not return in time is not waited for by anybody else; what it was told may still reach it, so nothing is answered for it (R26).",
	"read mended":        "A block that the primary's disk cannot read is read at a member and written anew (R23). Again and again means that the disk is about to fail.",
	"read failed":        "Nobody who may answer for the block could read it: the client got an error, and no other data (R23).",
	"no way back":        "A resync overwrites a replica without keeping what it overwrites: until it ends the replica cannot be promoted, also not by force (R18).",
	"two primaries":      "A write of an older epoch was refused by a replica that has seen a newer one (R1, R2). Nothing was acknowledged twice; find out why the old primary was not cut off.",
	"resync waits":       "What a forced promotion left behind is kept aside before it is overwritten (R19); something keeps that from going on.",
	"out of service":     "What has to be durable before a replica may answer could not be written (R16): it answers nobody until that is repaired and haclusterd restarted.",
	"volume formed":      "The first in-sync set of a new volume: replicas that are fresh are equal, and content counts on a person's word only.",
	"resync allowed":     "A person said that what a replica has of its own need not be kept aside (R19).",
	"node drained":       "An operator's word: the node stays a standby, and becomes primary only by `ha-admin failover VOLUME --to` it.",
	"maintenance on":     "An operator's word: no volume goes to another node by itself, whatever fails.",
	"writers held":       "In async no more is acknowledged than the bound allows to be lost (R13): writes wait until the standby has more, or is dropped after its patience.",
	"lag near its bound": "In async no more is acknowledged than the bound allows to be lost (R13): soon writers are slowed.",
}

// bases says why a copy was the right one, by the reason that a promotion names.
var bases = map[string]string{
	"first start":           "the volume was never served before",
	"hand-over":             "the old primary gave the role up after everything was on this member",
	"unchanged incarnation": "this member was never away since it joined: same boot, same disk, same process or a clean restart, so it has every acknowledged write, in async all but the end that its bound allows (R6, R13, R25)",
	"clean-stop mark":       "this member stopped in order after it had flushed everything (R25)",
	"nothing was unflushed": "this member had written everything to its disk before it ended (R25)",
	"last primary, every member lost its memory":                        "after a power loss of all, the last primary has the most (R25)",
	"every member lost its memory, and the last primary cannot be used": "after a power loss of all, what was flushed is on each member (R25)",
	"forced by a person": "a person accepted that acknowledged writes may be missing; what others had instead is kept there as rescue images (R19)",
}

var errFound = errors.New("found")

func (a *app) explainCommand() *cobra.Command {
	return command("explain NUMBER", "tell why an event of the cluster's history happened: the rule, the facts, the times", one, func(ctx context.Context, args []string) error {
		number, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil || number == 0 {
			return api.BadRequest("%q is no number of an event: `ha-admin events -o json` shows them as \"number\"", args[0])
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			var event *api.Event
			err := c.Events(ctx, false, func(e api.Event) error {
				if e.Number == number {
					event = &e
					return errFound
				}
				return nil
			})
			if err != nil && !errors.Is(err, errFound) {
				return err
			}
			if event == nil {
				return api.Failed("there is no event %d: it is older than what is kept, or of a node's own (number 0), whose text is all there is", number)
			}
			past, err := c.Failovers(ctx)
			if err != nil {
				return err
			}
			x := explain(*event, past)
			if a.output == "json" {
				return a.printJSON(x)
			}
			return a.print(x.String())
		})
	})
}

// explanation is an event with what stands behind it.
type explanation struct {
	Event    api.Event     `json:"event"`
	Rule     string        `json:"rule"`     // empty: none, the text is all there is
	Because  string        `json:"because"`  // of a promotion: why this copy
	Failover *api.Failover `json:"failover"` // null: it was none
}

func explain(e api.Event, past []api.Failover) explanation {
	x := explanation{Event: e, Rule: rules[e.Kind]}
	if e.Kind != "promoted" {
		return x
	}
	for basis, why := range bases {
		if strings.Contains(e.Text, "("+basis+";") {
			x.Because = why
		}
	}
	for _, f := range past {
		if f.Volume == e.Volume && strings.Contains(e.Text, fmt.Sprintf("of epoch %d ", f.Epoch)) {
			x.Failover = &f
		}
	}
	return x
}

func (x explanation) String() string {
	var out strings.Builder
	e := x.Event
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(&out, "%-8s %s\n", what, oneLine(text))
		}
	}
	line("event", fmt.Sprintf("%d, at %s, %s", e.Number, e.At.Format(time.RFC3339Nano), e.Kind))
	line("about", strings.TrimSpace(e.Volume+" "+e.Node))
	line("what", e.Text)
	line("because", x.Because)
	if x.Failover != nil {
		line("times", failoverText(*x.Failover))
	}
	line("rule", x.Rule)
	return out.String()
}
