// Package metrics shows a node's figures to Prometheus. A Source gives one Snapshot for each scrape, made of what the
// node knows by itself, so that a scrape asks no other node and waits for no disk; the package turns it into the text
// format and keeps nothing between scrapes.
//
// It refuses to let what others do grow its output: labels are nodes, volumes and links of the configuration, and
// reasons and stages of closed sets.
//
// Names: hacluster_ then the subject, base units (seconds, bytes), _total for what only grows. What comes from the
// cluster's replicated state is the same on every node: aggregate it with max, not with sum. The tables of names stand
// in volume.go, cluster.go and node.go; testdata/metrics.txt holds them all, with their labels, and a test keeps it.
//
// The daemon's node calls it: it is the Source and serves the Handler under /metrics.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source gives what a scrape shows. It is called from several goroutines, and must not wait for others.
type Source func() Snapshot

// What scrapes may cost: more at a time are answered 503, a longer one too.
const (
	maxScrapes    = 4
	scrapeTimeout = 5 * time.Second
)

// Handler serves the figures of s, those of the process and of its runtime.
func Handler(s Source) http.Handler {
	return promhttp.HandlerFor(registry(s), promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, ErrorHandling: promhttp.HTTPErrorOnError})
}

func registry(s Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// collector makes metrics of a fresh Snapshot. It describes nothing in advance: what a node has to tell depends on its
// role.
type collector struct{ source Source }

// Describe implements prometheus.Collector.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.source()
	e := emitter{out}
	e.node(&s)
	e.cluster(&s)
	for i := range s.Volumes {
		e.volume(&s.Volumes[i])
	}
}

// emitter writes metrics out.
type emitter struct{ out chan<- prometheus.Metric }

// family is one metric's name, help and labels.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("hacluster_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("hacluster_"+name, help, labels, nil), prometheus.CounterValue}
}

func histogram(name, help string, labels ...string) family {
	return family{desc: prometheus.NewDesc("hacluster_"+name, help, labels, nil)}
}

func (e emitter) set(f family, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

func (e emitter) flag(f family, on bool, labels ...string) {
	value := 0.0
	if on {
		value = 1
	}
	e.set(f, value, labels...)
}

// seconds shows a duration.
func (e emitter) seconds(f family, d time.Duration, labels ...string) {
	e.set(f, d.Seconds(), labels...)
}

func (e emitter) histogram(f family, l Latency, labels ...string) {
	buckets := make(map[float64]uint64, len(l.Bounds))
	for i, b := range l.Bounds {
		buckets[b] = l.Cumulative[i]
	}
	e.out <- prometheus.MustNewConstHistogram(f.desc, l.Count, l.SumSeconds, buckets, labels...)
}
