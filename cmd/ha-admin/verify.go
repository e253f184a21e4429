package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) volumeVerify() *cobra.Command {
	var r api.VolumeVerifyRequest
	var detach bool
	c := command("verify VOLUME", "compare the replicas while clients use the volume", one, func(ctx context.Context, args []string) error {
		r.Volume = args[0]
		if r.Stop && (r.Repair || detach) {
			return api.BadRequest("--stop contradicts --repair and --detach")
		}
		var begun api.VerifyBegun
		err := a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
			begun, err = c.VolumeVerify(ctx, r)
			return err
		})
		switch {
		case err != nil:
			return err
		case r.Stop:
			return a.done("the verify of %s is stopped", meant(r.Volume, begun.Group))
		case detach:
			return a.done("the verify of %s has begun on %s; `ha-admin status %s` shows how far it is", meant(r.Volume, begun.Group), begun.Primary, r.Volume)
		}
		return a.followVerify(ctx, r.Volume, begun)
	})
	c.Long = "The primary compares digests of its blocks with those of every other member of the in-sync set, read past the page cache\n" +
		"where that can be. A block counts as different only if it differs with writes to it held back. With --repair the primary's\n" +
		"content of exactly the blocks that differ, or cannot be read, is written to the other replica: whether the primary has the\n" +
		"right content is for you to know. If the other one has it, move the primary there first (ha-admin failover).\n\n" +
		"The comparison runs in the primary and goes on when this command is interrupted; it ends when the primary moves. Exit code:\n" +
		"0 equal, or everything that was found is repaired; 1 differences are left, or it did not come to its end. --timeout bounds\n" +
		"each question to a server, and for how long none may answer; not the comparison.\n\n" +
		"Of a group all volumes are compared, whichever is named: the counts are the group's, and each range is told with its volume.\n" +
		"--repair writes to all of them and wants the group's name.\n\n" +
		"A block verify { schedule = \"30 2 * * 0\" } of the volume in the configuration has the primary begin one by itself, by the\n" +
		"clock in UTC; ha-admin status shows when the next one is due."
	c.Flags().BoolVar(&r.Repair, "repair", false, "consent: what differs is overwritten with the primary's content")
	c.Flags().BoolVar(&r.Stop, "stop", false, "stop the one that runs")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for the end")
	return c
}

// verifyLook is how often the status is looked at, verifySay how often a person is told.
const (
	verifyLook = 500 * time.Millisecond
	verifySay  = 5 * time.Second
)

// followVerify waits for the end of the comparison that was begun and tells what came of it.
func (a *app) followVerify(ctx context.Context, volume string, begun api.VerifyBegun) error {
	if begun.Group != "" {
		volume = begun.Group // all of it is compared
	}
	heard, said := time.Now(), time.Now()
	for {
		v, err := a.lookAtVerify(ctx, volume)
		switch {
		case ctx.Err() != nil:
			return api.Failed("interrupted: the verify of %s goes on, `ha-admin status %s` shows how far it is, `ha-admin volume verify %s --stop` stops it", volume, volume, volume)
		case err != nil && time.Since(heard) > a.timeout:
			return err
		case err != nil:
		case v == nil || !v.StartedAt.Equal(begun.StartedAt):
			return api.Failed("the verify of %s that was begun on %s is not known any more: that node does not answer, was restarted, or has begun another", volume, begun.Primary)
		case v.State != api.VerifyRunning:
			return a.verifyEnd(volume, v)
		default:
			heard = time.Now()
			if time.Since(said) >= verifySay && a.output == "table" {
				said = time.Now()
				if err := a.print(verifyText(v) + "\n"); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(verifyLook):
		}
	}
}

func (a *app) lookAtVerify(ctx context.Context, volume string) (v *api.VerifyStatus, err error) {
	err = a.ask(ctx, func(ctx context.Context, c *api.Client) error {
		st, _, err := c.Status(ctx, volume)
		if err == nil {
			v = verifyOf(st.Volumes)
		}
		return err
	})
	return v, err
}

// verifyOf is the comparison of one volume, or of the volumes of a group, each of which has its own ranges of the same.
func verifyOf(volumes []api.VolumeStatus) *api.VerifyStatus {
	var of *api.VerifyStatus
	for _, vs := range volumes {
		switch {
		case vs.Verify == nil:
		case of == nil:
			one := *vs.Verify
			of = &one
		default:
			of.Ranges = append(slices.Clip(of.Ranges), vs.Verify.Ranges...)
		}
	}
	return of
}

func (a *app) verifyEnd(volume string, v *api.VerifyStatus) error {
	var err error
	if a.output == "json" {
		err = a.printJSON(v)
	} else {
		err = a.print(verifyText(v) + "\n" + verifyTable(v))
	}
	switch left := v.DifferentBlocks + v.UnreadableBlocks - v.RepairedBlocks; {
	case err != nil:
		return err
	case v.Equal():
		return nil
	case v.State != api.VerifyDone:
		return api.Failed("the verify of %s was %s after %s: run it again", volume, v.State, sizeText(v.DoneBytes))
	case left > 0 && !v.Repair:
		return api.Failed("%d blocks of %s differ or cannot be read: if %s has the right content, `ha-admin volume verify %s --repair` writes it to the others", left, meant(volume, v.Group), v.Primary, volume)
	case left > 0:
		return api.Failed("%d blocks of %s could not be repaired: `ha-admin status %s -o json` names them", left, meant(volume, v.Group), volume)
	}
	return api.Failed("not every replica of %s was compared to the end: run it again", volume)
}

// verifyText is a comparison in a line.
func verifyText(v *api.VerifyStatus) string {
	of := ""
	if v.Group != "" {
		of = "all of group " + v.Group + ": "
	}
	text := fmt.Sprintf("%s%s, %s of %s", of, v.State, sizeText(v.DoneBytes), sizeText(v.TotalBytes))
	if v.State == api.VerifyRunning {
		text += ", " + sizeText(v.RateBytesPerSec) + "/s"
		if v.ETASeconds != nil {
			text += ", " + (time.Duration(*v.ETASeconds) * time.Second).String() + " left"
		}
	} else if v.EndedAt != nil {
		text += ", " + v.EndedAt.UTC().Format(time.RFC3339)
	}
	if v.DifferentBlocks+v.UnreadableBlocks == 0 {
		return text + ", no difference"
	}
	return text + fmt.Sprintf(", %d blocks differ, %d cannot be read, %d of those repaired", v.DifferentBlocks, v.UnreadableBlocks, v.RepairedBlocks)
}

// verifyTable names what was found, and who was left out.
func verifyTable(v *api.VerifyStatus) string {
	var out strings.Builder
	if len(v.Ranges) > 0 {
		columns := []string{"NODE", "OFFSET", "LENGTH", "WHAT", "REPAIRED"}
		if v.Group != "" {
			columns = append([]string{"VOLUME"}, columns...)
		}
		t := newTable(columns...)
		for _, r := range v.Ranges {
			row := []any{r.Node, r.Offset, r.Length, r.Kind, yesNo(r.RepairedBytes == r.Length)}
			if v.Group != "" {
				row = append([]any{r.Volume}, row...)
			}
			t.row(row...)
		}
		out.WriteString(t.String())
	}
	if v.MoreRanges {
		out.WriteString("there are more ranges\n")
	}
	for _, r := range v.Replicas {
		if r.LeftOut != "" {
			fmt.Fprintf(&out, "%s was left out: %s\n", oneLine(r.Node), oneLine(r.LeftOut))
		}
		if r.SkippedBlocks > 0 {
			fmt.Fprintf(&out, "%d blocks of %s are marked as different already and were left to the mirror\n", r.SkippedBlocks, oneLine(r.Node))
		}
	}
	return out.String()
}
