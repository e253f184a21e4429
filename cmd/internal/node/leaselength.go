package node

import (
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// followLease has grants last as long as the applied RTO target says, by the replicated state: not by what this node has
// taken over so far, for the two must not part (R10).
func (l *leading) followLease(st *cluster.State) {
	if st.ID == "" || st.RTOMillis == 0 {
		return
	}
	if l.config != st.ConfigVersion {
		l.config, l.since = st.ConfigVersion, l.n.now()
	}
	t, err := config.TimersFor(millis(st.RTOMillis))
	if err != nil { // a later version of the program applied it: its leases are not known here
		l.n.log.Error("the applied RTO target cannot be used here", "rto", millis(st.RTOMillis), "error", err)
		l.n.fail(err)
		return
	}
	l.timers = t
	l.core.SetLease(t.Lease, config.LeaseFor(millis(st.LongestRTOMillis)))
}

// settleLeases tells the cluster that leases of an earlier, longer target have run out: this leader has granted none for
// as long as they last, and those of leaders before it are older still.
func (l *leading) settleLeases(st *cluster.State) {
	if st.LongestRTOMillis <= st.RTOMillis || st.ConfigVersion != l.config {
		return
	}
	now, longest := l.n.now(), config.LeaseFor(millis(st.LongestRTOMillis))
	longest += longest / 50
	if t, err := config.TimersFor(millis(st.LongestRTOMillis)); err == nil {
		longest += t.GuardWithDrift() + guardSlack // who promoted by such a lease waits for a guard of that target (guardWait)
	}
	if now.Sub(l.since) < longest || now.Sub(l.asked) < max(l.timers.Lease, time.Second) {
		return // twice the allowance for clocks that run apart
	}
	l.asked = now
	l.proposeAside(l.n.command(cluster.Command{SettleLeases: &cluster.SettleLeases{Version: st.ConfigVersion}}), nil)
}
