package node

import (
	"context"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// servedNews is what a node has to tell the leader of its failovers: of all volumes that moved together in one message.
type servedNews struct {
	waiting []control.Served // bounded: two of each volume and epoch
	since   []cluster.Instant
}

func (s *servedNews) add(now cluster.Instant, n control.Served) {
	s.waiting, s.since = append(s.waiting, n), append(s.since, now)
}

// take empties it of what is worth telling still: they are figures only, at last they are not kept.
func (s *servedNews) take(oldest cluster.Instant) (news []control.Served, since []cluster.Instant) {
	for i, n := range s.waiting {
		if s.since[i] >= oldest {
			news, since = append(news, n), append(since, s.since[i])
		}
	}
	s.waiting, s.since = nil, nil
	return news, since
}

// tellAll tells what there is until there is nothing more.
func (v *volumes) tellAll() {
	for {
		v.mu.Lock()
		news, since := v.news.take(v.n.now().Add(-10 * v.n.conf().Timers.RTO))
		if len(news) == 0 || v.done {
			v.telling = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		if v.tellLeader(v.life, &control.Served{Volume: news[0].Volume, Epoch: news[0].Epoch, Node: news[0].Node,
			PromoteMs: news[0].PromoteMs, FirstAck: news[0].FirstAck, SinceMs: news[0].SinceMs, More: news[1:]}) == nil {
			continue
		}
		v.mu.Lock()
		v.news.waiting, v.news.since = append(news, v.news.waiting...), append(since, v.news.since...)
		v.mu.Unlock()
		select {
		case <-v.life.Done():
		case <-time.After(v.n.conf().Timers.Renew):
		}
	}
}

// tellLeader finds whoever leads now: the old leader may have gone with the old primary.
func (v *volumes) tellLeader(ctx context.Context, s *control.Served) error {
	ctx, cancel := context.WithTimeout(ctx, v.n.conf().Timers.RTO)
	defer cancel()
	leader := v.n.leaderName()
	if leader == v.n.me.Name {
		_, err := v.n.Served(ctx, s)
		return err
	}
	client, err := v.n.peers.control(leader)
	if err != nil {
		return err
	}
	_, err = client.Served(ctx, s)
	return err
}
