package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// A size that is decided and not in force is shown, with what it waits for.
func TestStatusTellsWhatAGrowthWaitsFor(t *testing.T) {
	inc := cluster.Incarnation{Boot: "1", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Size: 1 << 30, Next: 2 << 30, Epoch: 3, Primary: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {Incarnation: inc}, "b": {Incarnation: inc}}}
	v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{}}
	if s := v.volume(vol); s.Size != 1<<30 || s.NextSize != 2<<30 || !strings.Contains(s.NextSizeWaitsFor, "no replica can take the role over now") {
		t.Errorf("while b is away: %d, %d: %s", s.Size, s.NextSize, s.NextSizeWaitsFor)
	}
	v.local["b"] = &control.LocalReply{Reports: []cluster.Report{{Volume: "db", Incarnation: inc, Epoch: 3, Held: true}}}
	if s := v.volume(vol); !strings.Contains(s.NextSizeWaitsFor, "`ha-admin failover db`") || !strings.Contains(s.NextSizeWaitsFor, "to b") {
		t.Errorf("while b could: %s", s.NextSizeWaitsFor)
	}
	delete(vol.Members, "b")
	if s := v.volume(vol); !strings.Contains(s.NextSizeWaitsFor, "b has to be in sync first") {
		t.Errorf("while b is being resynced: %s", s.NextSizeWaitsFor)
	}
	vol.Next = 0
	if s := v.volume(vol); s.NextSize != 0 || s.NextSizeWaitsFor != "" {
		t.Errorf("one that stays: %d: %s", s.NextSize, s.NextSizeWaitsFor)
	}
}

// What a promotion by force gave up is in the applied configuration: a file that says the same must not be told that it says what
// runs.
func TestGrowthThatWasGivenUpIsOfferedAgain(t *testing.T) {
	of := func(size int64) *config.Config {
		return &config.Config{Volumes: []config.Volume{{Name: "db", Size: size}}}
	}
	for name, c := range map[string]struct {
		grow, applied int64
		steps         int
	}{"given up": {0, 2 << 30, 1}, "waiting": {2 << 30, 2 << 30, 0}, "new": {0, 1 << 30, 0}} {
		st := cluster.NewState()
		st.Volumes["db"] = cluster.Volume{Name: "db", Size: 1 << 30, Next: c.grow}
		if steps := overtaken(st, of(c.applied), of(2<<30)); len(steps) != c.steps {
			t.Errorf("%s: %v", name, steps)
		}
	}
}

// A disk that is replaced while a growth waits for its promotion: the replica is a member again when that comes, and has to be
// there with the new size.
func TestReplicaMadeAnewHoldsTheSizeThatIsToCome(t *testing.T) {
	for name, was := range map[string]int64{"an absent file": 0, "a file of the volume's size": 1 << 20, "a larger file": 4 << 20} {
		n, device := ofOneVolume(t)
		if was > 0 {
			if err := os.WriteFile(device, make([]byte, was), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		st := cluster.NewState()
		st.ID = strings.Repeat("1", 32)
		vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 1 << 20, Next: 3 << 20, Epoch: 5, Primary: "beta",
			Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}, Members: map[string]cluster.Member{"beta": {}}}
		for _, size := range []int64{1 << 20, 3 << 20} { // the second time it was promoted
			vol.Size = size
			b, err := n.vols.openBacking(st, vol, device, config.Volume{})
			if err != nil {
				t.Fatalf("%s: with %d bytes: %v", name, size, err)
			}
			if b.dev.Size() != size {
				t.Errorf("%s: %d bytes are served, %d are in force", name, b.dev.Size(), size)
			}
			b.close()
			vol.Next = 0
		}
	}
}

// A crash between the map of marks and the superblock: while the log of the next process still shows the old size, its replica is
// not opened with it, which would say that the map is of another volume. With the new size it grows to its end.
func TestReplicaThatCrashedWhileGrowingWaitsForTheSizeToBeKnown(t *testing.T) {
	n, device := ofOneVolume(t)
	st := cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 1 << 20, Epoch: 5, Primary: "beta",
		Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}, Members: map[string]cluster.Member{"beta": {}}}
	b, err := n.vols.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	if n.vols.mayLag(vol) {
		t.Error("a whole one is not opened")
	}
	if err := os.Truncate(device, 3<<20); err != nil {
		t.Fatal(err)
	}
	dir, _ := n.vols.superblockPath("vol")
	if err := marks.ResizePath(filepath.Join(dir, "marks"), n.vols.marksBinding(st, vol, b.incarnation.Attachment, ""), 3<<20, false); err != nil {
		t.Fatal(err)
	}
	st.Nodes["alpha"] = cluster.Node{Start: n.dir.id.Start + 1} // not ours: our start is not in the log yet
	if n.vols.openSome(st, []cluster.Volume{vol}) {
		t.Errorf("opened with the old size")
	}
	vol.Size = 3 << 20
	n.vols.openSome(st, []cluster.Volume{vol})
	h, _ := n.vols.replicaOf(vol)
	if h == nil || h.broken != "" || h.size != 3<<20 {
		t.Fatalf("with the new size: %+v", h)
	}
	h.cancel()
	<-h.ended
}

// Whether our log may be behind what our replica has, after each crash of a resize, in either direction.
func TestLogIsBehindAReplicaThatWasResized(t *testing.T) {
	const small, large = 1 << 20, 3 << 20
	for name, c := range map[string]struct {
		size     int64
		number   uint64
		marked   int64
		recorded int64
		recordNo uint64
		want     bool
	}{
		"nothing happened":                            {large, 4, large, large, 4, false},
		"the record is newer, nothing is done":        {large, 4, large, small, 5, false},
		"the record is newer, the map follows":        {large, 4, small, small, 5, false},
		"the record is newer, all is done":            {small, 5, small, small, 5, false},
		"a shrink began, the log is old":              {large, 4, small, large, 4, true},
		"a shrink is done, the log is old":            {small, 5, small, large, 4, true},
		"a growth began, the log is old":              {small, 5, large, small, 5, true},
		"a growth is done, the log is old":            {large, 6, large, small, 5, true},
		"shrunk and grown, the log is of before both": {large, 6, large, large, 4, true},
		"two sizes of one number":                     {large, 5, large, small, 5, true},
		"a growth without a number, the log is old":   {large, 0, large, small, 0, true},
		"a growth without a number, nothing is done":  {small, 0, small, large, 0, false},
		"a growth without a number, the map follows":  {small, 0, large, large, 0, false},
	} {
		got := behind(&meta.Superblock{Size: c.size, Resized: c.number}, c.marked, cluster.Volume{Size: c.recorded, Resized: c.recordNo}, 0)
		if got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A replica is opened with what the record says, also after a crash at each step, in both directions. Marks stay. One that missed
// a size on the way believes nothing of its map any more (R16).
func TestReplicaTakesTheSizeOfTheRecord(t *testing.T) {
	const small, large = 8 << 20, 16 << 20
	for name, c := range map[string]struct {
		from, to int64
		number   uint64 // of to; from has 1
		marked   bool   // the crash came behind the map
		all      bool   // then all may differ
	}{
		"shrink": {large, small, 2, false, false}, "shrink after a crash": {large, small, 2, true, false},
		"grow": {small, large, 2, false, false}, "grow after a crash": {small, large, 2, true, false},
		"two sizes later": {large, small, 3, false, true}, "two sizes later, the same": {large, large, 3, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			n, device := ofOneVolume(t)
			st := cluster.NewState()
			st.ID = strings.Repeat("1", 32)
			vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: c.from, Resized: 1, Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}}
			b, err := n.vols.openBacking(st, vol, device, config.Volume{}) // fresh: nothing is marked
			if err != nil {
				t.Fatal(err)
			}
			told := make(waits, 1)
			if done, err := b.marks.Mark(blockdev.Range{Off: 5 << 20, Len: 4096}, 1, told); err != nil || !done && <-told != nil {
				t.Fatal(err)
			}
			b.close()
			if err := os.Truncate(device, large); err != nil {
				t.Fatal(err)
			}
			dir, _ := n.vols.superblockPath("vol")
			if c.marked {
				if err := marks.ResizePath(filepath.Join(dir, "marks"), n.vols.marksBinding(st, vol, b.incarnation.Attachment, ""), c.to, false); err != nil {
					t.Fatal(err)
				}
			}
			vol.Size, vol.Resized, vol.Epoch, vol.Primary = c.to, c.number, 5, "beta"
			for range 2 { // the second time there is nothing to do
				if b, err = n.vols.openBacking(st, vol, device, config.Volume{}); err != nil {
					t.Fatal(err)
				}
				sb := b.super.file.Get()
				if b.dev.Size() != c.to || sb.Size != c.to || sb.Resized != c.number {
					t.Errorf("%d bytes are served, the superblock has %d, number %d", b.dev.Size(), sb.Size, sb.Resized)
				}
				if all := b.marks.Slots()[0].Everything; all != c.all || !all && (b.marks.Marked(0) != 0 || b.marks.Marked(1) != 1) {
					t.Errorf("all may differ: %t; marked are %b and %b", all, b.marks.Marked(0), b.marks.Marked(1))
				}
				b.close()
			}
		})
	}
}

// waits is told when a mark is durable.
type waits chan error

func (w waits) Marked(err error) { w <- err }

// One volume that cannot be handed over keeps no other from growing, and the answer tells of each.
func TestVolumesGrowThatCanWhenOthersCannot(t *testing.T) {
	all := []cluster.ResizeVolume{{Name: "a", Size: 1 << 20}, {Name: "b", Size: 2 << 20}, {Name: "c", Size: 3 << 20}, {Name: "d", Size: 4 << 20}}
	var asked []string
	err := takeForce(all, func(g cluster.ResizeVolume) error {
		asked = append(asked, g.Name)
		if g.Name == "a" || g.Name == "c" {
			return errors.New("nobody takes " + g.Name)
		}
		return nil
	})
	if got := strings.Join(asked, " "); got != "a b c d" {
		t.Errorf("handed over: %s", got)
	}
	if err == nil || api.KindOf(err) != api.KindFailed {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{"the change is applied", "2 of 4 volumes", "(a, c)", "a, which is to have 1048576 bytes: nobody takes a", "3145728 bytes: nobody takes c", "`ha-admin failover VOLUME`"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	if err := takeForce(all, func(cluster.ResizeVolume) error { return nil }); err != nil {
		t.Error(err)
	}
}

// What is on a person's consent, and whose.
func TestVolumeShrinksWithConsentOnly(t *testing.T) {
	for name, c := range map[string]struct {
		clients    int
		lose, cut  bool
		wants, kit string
	}{
		"no consent":                    {0, false, false, "last 4096 bytes are lost", "--accept-data-loss"},
		"consent to cut off only":       {1, false, true, "last 4096 bytes are lost", "--accept-data-loss"},
		"clients, no consent to that":   {2, true, false, "2 clients are connected", "--disconnect-clients"},
		"clients, and consent":          {2, true, true, "", ""},
		"no clients, and consent":       {0, true, false, "", ""},
		"no clients, consent to all":    {0, true, true, "", ""},
		"no consent, and clients, both": {1, false, false, "last 4096 bytes are lost", "--accept-data-loss"},
	} {
		err := mayShrink(&cluster.Volume{Name: "db", Size: 12288}, cluster.ResizeVolume{Name: "db", Size: 8192}, c.clients, api.ApplyRequest{AcceptDataLoss: c.lose, DisconnectClients: c.cut})
		switch {
		case c.wants == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.wants != "" && (err == nil || api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), c.kit)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What keeps a volume from being resized: a replica that could not follow, or that has something of the present size.
func TestVolumeIsResizedOnlyWhenEveryReplicaHasItsPresentSize(t *testing.T) {
	inc := cluster.Incarnation{Boot: "1", Attachment: "x"}
	for name, c := range map[string]struct {
		change func(vol *cluster.Volume, b *control.LocalReply)
		wants  string
	}{
		"all is well":                     {func(*cluster.Volume, *control.LocalReply) {}, ""},
		"b is no member":                  {func(vol *cluster.Volume, _ *control.LocalReply) { delete(vol.Members, "b") }, "b is not in sync"},
		"b is silent":                     {func(_ *cluster.Volume, b *control.LocalReply) { b.Reports = nil }, "b is not in sync"},
		"b failed":                        {func(_ *cluster.Volume, b *control.LocalReply) { b.Reports[0].Failed = true }, "b is not in sync"},
		"b is in pieces":                  {func(_ *cluster.Volume, b *control.LocalReply) { b.Reports[0].Inconsistent = true }, "b is not in sync"},
		"b has not taken the epoch":       {func(_ *cluster.Volume, b *control.LocalReply) { b.Reports[0].Epoch = 2 }, "no part in epoch 3"},
		"b keeps what a force overruled":  {func(_ *cluster.Volume, b *control.LocalReply) { b.Rescued = []control.Rescued{{Volume: "db"}} }, "1 rescue images"},
		"nobody could take the role over": {func(vol *cluster.Volume, _ *control.LocalReply) { vol.Replicas = vol.Replicas[:1] }, "one replica only"},
	} {
		for _, size := range []int64{1 << 20, 3 << 20} {
			vol := &cluster.Volume{Name: "db", Size: 2 << 20, Epoch: 3, Primary: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
				Members: map[string]cluster.Member{"a": {Incarnation: inc}, "b": {Incarnation: inc}}}
			report := cluster.Report{Volume: "db", Incarnation: inc, Epoch: 3, Held: true}
			b := &control.LocalReply{Reports: []cluster.Report{report}}
			v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{"b": b,
				"a": {Reports: []cluster.Report{report}, Serving: []control.Serving{{Volume: "db", Epoch: 3}}}}}
			c.change(vol, b)
			err := v.mayResize(vol, cluster.ResizeVolume{Name: "db", Size: size}, api.ApplyRequest{AcceptDataLoss: true})
			if (err == nil) != (c.wants == "") || err != nil && (api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), c.wants)) {
				t.Errorf("%s, to %d: %v", name, size, err)
			}
			if err := v.mayResize(vol, cluster.ResizeVolume{Name: "db", Size: vol.Size}, api.ApplyRequest{}); err != nil {
				t.Errorf("%s: a size that waits cannot be taken back: %v", name, err)
			}
		}
	}
}

func TestSizesThatAFileChanges(t *testing.T) {
	for name, c := range map[string]struct {
		size, next, file int64
		want             []cluster.ResizeVolume
	}{
		"the size that it has":        {8192, 0, 8192, nil},
		"the size that it is to have": {8192, 4096, 4096, nil},
		"larger":                      {8192, 0, 12288, []cluster.ResizeVolume{{Name: "db", Size: 12288, Number: 5}}},
		"smaller":                     {8192, 0, 4096, []cluster.ResizeVolume{{Name: "db", Size: 4096, Number: 5, Loses: 4096}}},
		"a growth is taken back":      {8192, 12288, 8192, []cluster.ResizeVolume{{Name: "db", Size: 8192, Number: 5}}},
		"a shrink is taken back":      {8192, 4096, 8192, []cluster.ResizeVolume{{Name: "db", Size: 8192, Number: 5}}},
		"a growth becomes a shrink":   {8192, 12288, 4096, []cluster.ResizeVolume{{Name: "db", Size: 4096, Number: 5, Loses: 4096}}},
	} {
		st := cluster.NewState()
		st.Volumes["db"] = cluster.Volume{Name: "db", Size: c.size, Next: c.next, Resized: 4}
		if got := resizes(st, &config.Config{Volumes: []config.Volume{{Name: "db", Size: c.file}}}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Clearing and closing exclude each other, and what was asked on another size clears nothing: it may be in use by now.
func TestOnlyWhatIsBehindTheEndIsCleared(t *testing.T) {
	const size, end = 8 << 20, 16 << 20
	n, device := ofOneVolume(t)
	vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: size, Resized: 2, OldEnd: end, Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}}
	old := bytes.Repeat([]byte("old."), end/4)
	if err := os.WriteFile(device, old, 0o600); err != nil {
		t.Fatal(err)
	}
	h := &held{id: vol.ID, size: size, resized: 2, tail: make(chan struct{}, 1)}
	n.vols.all["vol"] = h
	tail := blockdev.Range{Off: size, Len: end - size}
	holds := func(want []byte) {
		t.Helper()
		if p, err := os.ReadFile(device); err != nil || !bytes.Equal(p, want) {
			t.Errorf("the backing has changed, or has not, %v", err)
		}
	}
	for name, change := range map[string]func(*held){"another size": func(h *held) { h.size = end }, "another number": func(h *held) { h.resized = 4 },
		"being closed": func(h *held) { h.retired = true }, "not open": func(h *held) { h.broken = "gone" }, "another volume": func(h *held) { h.id = "3" }} {
		other := *h
		change(&other)
		n.vols.all["vol"] = &other
		if err := n.vols.clearTail(t.Context(), &vol, device, tail); err == nil {
			t.Errorf("%s: it was cleared", name)
		}
	}
	n.vols.all["vol"] = h
	over, end1 := context.WithCancel(t.Context())
	end1()
	if err := n.vols.clearTail(over, &vol, device, tail); err == nil {
		t.Error("who asked has gone: it was cleared")
	}
	h.tail <- struct{}{} // it is being closed
	if err := n.vols.clearTail(over, &vol, device, tail); !errors.Is(err, context.Canceled) {
		t.Errorf("while it is being closed: %v", err)
	}
	<-h.tail
	holds(old)
	if err := n.vols.clearTail(t.Context(), &vol, device, tail); err != nil || len(h.tail) != 0 {
		t.Errorf("%v, %d hold it", err, len(h.tail))
	}
	holds(append(bytes.Clone(old[:size]), make([]byte, end-size)...))
}

// ofOneVolume is the node alpha, which does not run, and where its replica would lie.
func ofOneVolume(t *testing.T) (n *Node, device string) {
	t.Helper()
	dir := t.TempDir()
	device = filepath.Join(dir, "disk")
	file := trioConfig(t, dir, "1MiB", device, device+".beta", "")
	cfg, err := config.Load(file, config.Options{Node: "alpha", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err = New(cfg, slog.New(slog.DiscardHandler), Env{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.mux.Close()
		n.dir.close()
	})
	return n, device
}
