package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/api"
)

func (a *app) rescueCommand() *cobra.Command {
	c := group("rescue", "look after what replicas held that a promotion by force left behind", a.rescueList(), a.rescueShow(), a.rescueExport(), a.rescueDelete())
	c.Long = "After a promotion by force the other replica may hold acknowledged writes that the new primary lacks. When it returns it is\n" +
		"resynced, and the old content of every block that this overwrites is kept there as a rescue image, until somebody deletes\n" +
		"it. An export of it is the whole volume as that replica had it: attach it with `mount -o loop`, read what is missed, copy\n" +
		"it to the volume, and delete the image: until then each block that is written for the first time is copied before."
	return c
}

func (a *app) rescueList() *cobra.Command {
	return command("list [VOLUME]", "list the rescue images", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		volume := ""
		if len(args) > 0 {
			volume = args[0]
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			all, err := c.RescueList(ctx, volume)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(all)
			}
			t := newTable("VOLUME", "IMAGE", "NODE", "RESCUED", "FILE", "CLOSED", "COMPLETE", "WHOLE")
			for _, i := range all {
				t.row(i.Volume, i.ID, i.Node, sizeText(i.Bytes), sizeText(i.File), timeText(i.Closed), yesNo(i.Complete), yesNo(i.Whole))
			}
			return a.print(t.String())
		})
	})
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (a *app) rescueShow() *cobra.Command {
	return command("show VOLUME IMAGE", "tell of one rescue image", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			i, err := rescueImage(ctx, c, args[0], args[1])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(i)
			}
			t := newTable()
			t.row("image", i.ID)
			t.row("volume", i.Volume+", "+sizeText(i.Size))
			t.row("node", i.Node)
			t.row("a member until", timeText(i.Member))
			t.row("resynced in epoch", i.Epoch)
			t.row("resync ended", timeText(i.Closed))
			t.row("rescued", fmt.Sprintf("%d blocks, %s", i.Blocks, sizeText(i.Bytes)))
			t.row("takes", sizeText(i.File))
			t.row("all that was overwritten", yesNo(i.Complete))
			t.row("whole volume", yesNo(i.Whole))
			t.row("why not", i.Reason)
			return a.print(t.String())
		})
	})
}

func rescueImage(ctx context.Context, c *api.Client, volume, id string) (api.RescueImage, error) {
	all, err := c.RescueList(ctx, volume)
	if err != nil {
		return api.RescueImage{}, err
	}
	for _, i := range all {
		if i.ID == id {
			return i, nil
		}
	}
	return api.RescueImage{}, api.Failed("no node that answers has a rescue image %q of %q: `ha-admin volume rescue list %s` shows those that are", id, volume, volume)
}

func (a *app) rescueExport() *cobra.Command {
	r, out := api.RescueExportRequest{}, ""
	c := command("export VOLUME IMAGE --out FILE", "write a rescue image to a file, as the whole volume", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		r.Volume, r.ID = args[0], args[1]
		if out == "" {
			return api.BadRequest("--out FILE is missing: where is the volume to be written?")
		}
		c, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := export(ctx, c, r, out); err != nil {
			return err
		}
		return a.done("%s of %s is in %s: `mount -o loop %s DIR` shows a file system that is in it", r.ID, r.Volume, out, out)
	})
	c.Long = "The file is sparse, as large as the volume, and holds what the replica held when its resync began. Clients go on meanwhile.\n" +
		"An image of which a part may have been written since is refused without --partial: then what the resync overwrote is right, as\n" +
		"far as the image has it (`rescue show` says whether that is all), and the rest is as the replica has it now. --timeout bounds the connecting, not the copying. The file must not be there."
	c.Flags().StringVar(&out, "out", "", "the file that is made")
	c.Flags().BoolVar(&r.Partial, "partial", false, "consent to what is no whole volume any more")
	return c
}

// export writes the volume beside its name, and gives it the name when it is whole and durable.
func export(ctx context.Context, c *api.Client, r api.RescueExportRequest, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return api.Failed("%s is there already: name a file that is not", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*") // mode 0600: it is a volume's data
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = c.RescueExport(ctx, r, func(p api.RescuePart) error { return writePart(f, p) })
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // never over a file that came meanwhile
		return err
	}
	return os.Remove(f.Name())
}

func writePart(f *os.File, p api.RescuePart) error {
	switch {
	case p.Size > 0:
		return f.Truncate(p.Size)
	case len(p.Data) > 0:
		_, err := f.WriteAt(p.Data, p.Off)
		return err
	case p.Len == 0:
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.Off, p.Len)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeroes := make([]byte, min(p.Len, 1<<20))
	for n := int64(0); n < p.Len; n += int64(len(zeroes)) {
		if _, err := f.WriteAt(zeroes[:min(int64(len(zeroes)), p.Len-n)], p.Off+n); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) rescueDelete() *cobra.Command {
	yes := false
	c := command("delete VOLUME IMAGE", "delete a rescue image for good", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		var i api.RescueImage
		err := a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
			i, err = rescueImage(ctx, c, args[0], args[1])
			return err
		})
		if err == nil && !yes {
			err = a.sure(fmt.Sprintf("%s on %s holds %d blocks (%s) that the other replicas of %s may lack. Delete them for good? [yes/no] ", i.ID, i.Node, i.Blocks, sizeText(i.Bytes), i.Volume))
		}
		if err != nil {
			return err
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			if err := c.RescueDelete(ctx, i.Volume, i.ID); err != nil {
				return err
			}
			return a.done("%s of %s is deleted", i.ID, i.Volume)
		})
	})
	c.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return c
}
