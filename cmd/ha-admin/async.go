package main

import (
	"fmt"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
)

// asyncText tells of a volume in async: what would be lost if its primary were lost now, what the bound is, and how writers fare.
func asyncText(v api.VolumeStatus) string {
	a := v.Async
	bound := fmt.Sprintf("%s, acknowledged within %s", sizeText(a.MaxLagBytes), msText(a.MaxLagMs))
	var out strings.Builder
	switch {
	case v.Primary == "" || v.State == api.VolumeUnavailable:
		fmt.Fprintf(&out, "  async: nobody serves; a standby that follows lacks at most %s\n", bound)
		return out.String()
	case a.LossBytes == nil:
		fmt.Fprintf(&out, "  async: if %s were lost now, no standby would follow without a person's word\n", oneLine(v.Primary))
	default:
		fmt.Fprintf(&out, "  async: if %s were lost now, at most %s would be, the oldest acknowledged %s ago; never more than %s\n",
			oneLine(v.Primary), sizeText(*a.LossBytes), msText(*a.LossMs), bound)
	}
	writers := fmt.Sprintf("not slowed, %d %% of the bound is used", a.UsedPercent)
	switch a.Writers {
	case api.WritersSlowed:
		writers = fmt.Sprintf("slowed, %d %% of the bound is used: %s", a.UsedPercent, a.Reason)
	case api.WritersHeld:
		writers = "held: " + a.Reason
	}
	fmt.Fprintf(&out, "  writers: %s\n", oneLine(writers))
	switch {
	case a.SpoolReason != "":
		fmt.Fprintf(&out, "  spool: %s in it, and it takes nothing: %s\n", sizeText(a.SpoolBytes), oneLine(a.SpoolReason))
	case a.SpoolBytes > 0:
		fmt.Fprintf(&out, "  spool: %s of what standbys lack\n", sizeText(a.SpoolBytes))
	}
	return out.String()
}

// rescueText says where lies what a failover left behind.
func rescueText(volume string, k *api.RescueStatus) string {
	images := "1 rescue image"
	if k.Images != 1 {
		images = fmt.Sprintf("%d rescue images", k.Images)
	}
	return oneLine(fmt.Sprintf("%s, %s, of what it held and the volume lacks: `ha-admin volume rescue list %s`", images, sizeText(k.Bytes), volume))
}

// lossText says what a failover may have lost, and what was heard of it.
func lossText(f api.Failover) string {
	switch {
	case f.RPOBytes < 0:
		return "how much is lost is not known" + heardText(f)
	case f.RPOBytes == 0:
		return "0 B lost"
	case f.RPOMs == 0:
		return fmt.Sprintf("at most %s lost", sizeText(f.RPOBytes))
	}
	return fmt.Sprintf("at most %s lost, acknowledged within %s%s", sizeText(f.RPOBytes), msText(f.RPOMs), heardText(f))
}

func heardText(f api.Failover) string {
	if f.Lag == nil {
		return fmt.Sprintf(" (%s had not said how far %s was behind)", orNone(f.From), orNone(f.To))
	}
	return fmt.Sprintf(" (%s said last, %s before, that %s lacked %s, the oldest for %s)", orNone(f.From), msText(f.Lag.AgeMs), orNone(f.To), sizeText(f.Lag.Bytes), msText(f.Lag.Ms))
}

// rpoText is lossText for a column.
func rpoText(f api.Failover) string {
	switch {
	case f.RPOBytes < 0:
		return "unknown"
	case f.RPOBytes == 0:
		return sizeText(0)
	case f.RPOMs == 0:
		return "<= " + sizeText(f.RPOBytes)
	}
	return fmt.Sprintf("<= %s, %s", sizeText(f.RPOBytes), msText(f.RPOMs))
}

// msText shows milliseconds to a person.
func msText(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }
