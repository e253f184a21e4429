package attach

import "testing"

func TestWhatIsHeldGoesOnOnlyWhereNobodyElseWrote(t *testing.T) {
	at := func(epoch, since uint64) Tenure { return Tenure{ID: "v", Epoch: epoch, Since: since} }
	for name, c := range map[string]struct {
		before, now Tenure
		said        bool
		want        Verdict
	}{
		"the same epoch again":                            {at(5, 5), at(5, 5), true, Go},
		"the same epoch, since is not known":              {at(5, 0), at(5, 0), true, Go},
		"promoted anew, nobody else meanwhile":            {at(5, 5), at(6, 5), true, Go},
		"promoted anew twice":                             {at(5, 3), at(7, 3), true, Go},
		"primary from the very epoch on":                  {at(5, 4), at(9, 5), true, Go},
		"another was primary between":                     {at(5, 5), at(7, 7), true, Over},
		"another was primary, and we twice since":         {at(5, 5), at(8, 7), true, Over},
		"by force, with what may be lost":                 {at(5, 5), at(6, 6), true, Over},
		"a new epoch of which it is not known since":      {at(5, 5), at(6, 0), true, Over},
		"an earlier epoch":                                {at(5, 5), at(4, 4), true, Wait},
		"another volume of the same name":                 {at(5, 5), Tenure{ID: "w", Epoch: 6, Since: 5}, true, Over},
		"another volume of the same name, same epoch":     {at(5, 5), Tenure{ID: "w", Epoch: 5, Since: 5}, true, Over},
		"a daemon that does not say in which epoch it is": {at(5, 5), Tenure{}, false, Wait},
	} {
		var h Hold
		if v, why := h.Judge(c.before, true); v != Go {
			t.Fatalf("%s: the first connection: %v, %s", name, v, why)
		}
		v, why := h.Judge(c.now, c.said)
		if v != c.want || (why == "") != (v == Go) {
			t.Errorf("%s: %v because %q, want %v", name, v, why, c.want)
		}
		if v != Go && h.Last() != c.before.Epoch {
			t.Errorf("%s: a connection that was not used moved the epoch to %d", name, h.Last())
		}
	}
}

func TestFirstConnectionHasToSayItsEpoch(t *testing.T) {
	var h Hold
	if v, _ := h.Judge(Tenure{}, false); v != Wait {
		t.Errorf("%v", v)
	}
}

func TestTenureIsReadAsItIsWritten(t *testing.T) {
	want := Tenure{ID: "00112233445566778899aabbccddeeff", Epoch: 12, Since: 7}
	if got, ok := ParseTenure(want.String()); !ok || got != want {
		t.Errorf("%q: %+v, %v", want, got, ok)
	}
	for _, s := range []string{"", "a volume", want.String() + " and more", "hacluster volume x epoch 0 since 0", "hacluster volume x epoch 3 since 4",
		"hacluster volume x epoch -3 since 1", "hacluster volume x epoch 03 since 1", "hacluster volume  epoch 3 since 1"} {
		if got, ok := ParseTenure(s); ok {
			t.Errorf("%q was read as %+v", s, got)
		}
	}
}

func TestWhatIsDoneAboutADevice(t *testing.T) {
	serving := View{Wanted: true, Exists: true, Primary: "a", Self: "a", Epoch: 7, Since: 5, Serves: true, Size: 8}
	with := func(v View, change ...func(*View)) View {
		for _, f := range change {
			f(&v)
		}
		return v
	}
	server := func(v *View) { v.Server, v.DeviceSize, v.Told = true, 8, 7 }
	unwanted := func(v *View) { v.Wanted = false }
	leaving := func(v *View) { v.Leaving = true }
	left := func(v *View) { v.Left = true }
	notYet := func(v *View) { v.Serves = false }
	elsewhere := func(v *View) { v.Primary, v.Epoch, v.Since, v.Serves = "b", 8, 8, false }
	nobody := func(v *View) { v.Primary, v.Serves = "", false }
	deleted := func(v *View) { v.Exists, v.Primary, v.Serves, v.Wanted = false, "", false, false }
	unknown := func(v *View) { v.Told, v.DeviceSize = 0, 0 }
	old := func(v *View) { v.Epoch, v.Since = 4, 4 }
	unregistered := func(v *View) { v.Primary, v.Epoch, v.Since, v.Serves = "", 0, 0, false }
	again := func(epoch, since uint64) func(*View) { return func(v *View) { v.Epoch, v.Since = epoch, since } }
	grown := func(v *View) { v.Size = 16 }
	for name, c := range map[string]struct {
		v    View
		want Action
	}{
		"a primary that serves":                          {serving, Start},
		"a primary that serves, attach is none":          {with(serving, unwanted), Nothing},
		"a primary that does not serve yet":              {with(serving, notYet), Nothing},
		"a standby":                                      {with(serving, elsewhere), Nothing},
		"a hand-over is under way":                       {with(serving, leaving), Nothing},
		"a killed server left something":                 {with(serving, left), Clean},
		"a killed server left something at a standby":    {with(serving, elsewhere, left), Clean},
		"a killed server left something, attach is none": {with(serving, unwanted, left), Clean},
		"attached":                                                 {with(serving, server), Nothing},
		"attached, the daemon was restarted":                       {with(serving, server, notYet), Nothing},
		"attached, nobody is primary":                              {with(serving, server, nobody), Nothing},
		"attached, another is primary":                             {with(serving, server, elsewhere), Abandon},
		"attached, another is primary after the hand-over":         {with(serving, server, elsewhere, leaving), Abandon},
		"attached, the volume is deleted":                          {with(serving, server, deleted), Abandon},
		"attached, not wanted any more":                            {with(serving, server, unwanted), Release},
		"attached, a hand-over is under way":                       {with(serving, server, leaving), Nothing},
		"attached, resized":                                        {with(serving, server, grown), Resize},
		"attached, resized, not serving yet":                       {with(serving, server, grown, notYet), Nothing},
		"attached, of an earlier process":                          {with(serving, server, unknown), Status},
		"attached, of an earlier process, another is primary":      {with(serving, server, unknown, elsewhere), Status},
		"attached, of an earlier process, another is, not wanted":  {with(serving, server, unknown, elsewhere, unwanted), Status},
		"attached, of an earlier process, the volume is deleted":   {with(serving, server, unknown, deleted), Abandon},
		"attached, this process is not registered":                 {with(serving, server, unregistered), Nothing},
		"no device, this process is not registered":                {with(serving, unregistered), Nothing},
		"attached, another was primary in an epoch of before":      {with(serving, server, elsewhere, old), Nothing},
		"attached, this node was primary since an epoch of before": {with(serving, server, old), Nothing},
		"attached, promoted anew, nobody else meanwhile":           {with(serving, server, again(9, 5)), Nothing},
		"attached, primary since the very epoch":                   {with(serving, server, again(9, 7)), Nothing},
		"attached, the same epoch, since is not known":             {with(serving, server, again(7, 0)), Nothing},
		"attached and idle, another was primary between":           {with(serving, server, again(9, 9)), Abandon},
		"attached and idle, another was primary, we twice since":   {with(serving, server, again(10, 9)), Abandon},
		"attached and idle, another was primary, not serving yet":  {with(serving, server, again(9, 9), notYet), Abandon},
		"attached and idle, a new epoch, since is not known":       {with(serving, server, again(8, 0)), Abandon},
		"attached and idle, another was primary, not wanted":       {with(serving, server, again(9, 9), unwanted), Abandon},
		"attached, another volume has the name":                    {with(serving, server, old, func(v *View) { v.Replaced = true }), Abandon},
		"attached, its size is not known yet":                      {with(serving, server, func(v *View) { v.DeviceSize = 0 }), Nothing},
	} {
		got, why := Decide(c.v)
		if got != c.want {
			t.Errorf("%s: %v (%s), want %v", name, got, why, c.want)
		}
		if why == "" && !c.v.Server && got == Nothing || why == "" && got == Abandon {
			t.Errorf("%s: no reason", name)
		}
	}
}
