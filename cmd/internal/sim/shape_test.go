package sim

// maxNodes is how many machines a cluster of the model has at most.
const maxNodes = 5

// shape is which machines there are: those with a replica first, then the witness. All of them vote.
type shape struct {
	names    []string
	replicas int
}

// shapeOf: of forty seeds ten play three replicas without a witness and three play four with one; all others two and a witness.
func shapeOf(seed uint64) shape {
	n := *replicas
	if n == 0 {
		switch seed % 40 {
		case 10, 33, 35:
			n = 4
		case 6, 11, 12, 15, 17, 18, 26, 29, 32, 38:
			n = 3
		default:
			n = 2
		}
	}
	names := []string{"alpha", "beta", "gamma", "delta", "epsilon"}
	return shape{names: names[:n+1-n%2], replicas: n}
}

// data are the machines that hold a replica.
func (w *world) data() []*node { return w.nodes[:w.shape.replicas] }

func (w *world) anyData() *node { return w.nodes[w.rng.IntN(w.shape.replicas)] }

// another is any machine but n.
func (w *world) another(n *node) *node {
	return w.nodes[(n.index+1+w.rng.IntN(len(w.nodes)-1))%len(w.nodes)]
}

// relay is a machine through which a message may go from a to b.
func (w *world) relay(a, b *node) *node {
	var all []*node
	for _, n := range w.nodes {
		if n != a && n != b {
			all = append(all, n)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return all[w.rng.IntN(len(all))]
}

// standby is any machine with a replica but n.
func (w *world) standby(n *node) *node {
	i := 0
	if w.shape.replicas > 2 {
		i = w.rng.IntN(w.shape.replicas - 1)
	}
	return w.nodes[(n.index+1+i)%w.shape.replicas]
}

// majority is how many voters decide.
func (w *world) majority() int { return len(w.nodes)/2 + 1 }

func (w *world) voters() []string { return w.shape.names }

func (w *world) names(nodes []*node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.name)
	}
	return all
}

// keepsImages reports whether any replica keeps a rescue image.
func (w *world) keepsImages() bool {
	for _, n := range w.data() {
		if len(n.kept) > 0 {
			return true
		}
	}
	return false
}
