package cluster

// A batch is one entry for commands on many volumes: a node that dies takes a thousand volumes along, and an entry for each would
// cost a flush of every log each. It decides nothing of its own: every item is judged by its own epoch and version, in the order of
// the items, as if each were an entry with the index and term of the batch (R7). A void one leaves the others as they are.

// MaxBatch is how many commands one entry holds.
const MaxBatch = 1024

// Batches reports whether the command may be an item of a batch: those on one volume that nodes decide by themselves, and the
// figures of a failover.
func (c *Command) Batches() bool {
	return c.Promote != nil || c.Form != nil || c.Drop != nil || c.Admit != nil || c.Rejoin != nil || c.SetMode != nil || c.Failover != nil
}

// Items are the commands of a batch as each stands alone, or the command itself.
func (c Command) Items() []Command {
	if len(c.Batch) == 0 {
		return []Command{c}
	}
	items := make([]Command, len(c.Batch))
	for i, item := range c.Batch {
		if item.By == "" {
			item.By = c.By
		}
		if item.AtMillis == 0 {
			item.AtMillis = c.AtMillis
		}
		items[i] = item
	}
	return items
}

// Together is one command of all items; a single one stays what it is, so that every program reads it.
func Together(items []Command) Command {
	if len(items) == 1 {
		return items[0]
	}
	return Command{By: items[0].By, AtMillis: items[0].AtMillis, Batch: items}
}

// Results are those of the command's items, as Items has them.
func (r Result) Results() []Result {
	if len(r.Items) == 0 {
		return []Result{r}
	}
	return r.Items
}

// batch applies all items and tells what became of each.
func (s *State) batch(index, term uint64, c Command) Result {
	r := Result{Index: index}
	if len(c.Batch) > MaxBatch {
		r.Void = "a batch of more commands than one entry holds"
		return r
	}
	for _, item := range c.Items() {
		if len(item.Batch) > 0 || !item.Batches() {
			r.Items = append(r.Items, Result{Void: "a command that no batch holds", Index: index})
			continue
		}
		r.Items = append(r.Items, s.one(index, term, item))
	}
	return r
}
