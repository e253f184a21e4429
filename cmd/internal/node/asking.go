package node

import "hacluster/heartbeat/cluster"

// asking is when something that was proposed may be proposed once more. A start applies the whole log again, and each of
// its entries is news: whoever proposes with each of them, until the own entry comes by, writes one more entry for each of
// those that are there. The log grew by half with every start, and starts took longer and longer.
type asking struct {
	next  cluster.Instant // not before
	until uint64          // index of the entry that answered; what is applied here has to get there first. 0: no answer
}

func (a asking) again(now cluster.Instant, applied uint64) bool {
	return now >= a.next && applied >= a.until
}
