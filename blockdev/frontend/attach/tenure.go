package attach

import "fmt"

// Tenure is what the daemon says of the volume on each NBD connection, which ends when it is true no more: the volume's id, the epoch
// in which it is served, and the one since which this node has been primary without a break.
type Tenure struct {
	ID           string
	Epoch, Since uint64
}

const tenureForm = "hacluster volume %s epoch %d since %d"

// String is the export's description.
func (t Tenure) String() string { return fmt.Sprintf(tenureForm, t.ID, t.Epoch, t.Since) }

// ParseTenure reads what String wrote; of anything else it is not ok.
func ParseTenure(s string) (t Tenure, ok bool) {
	n, err := fmt.Sscanf(s, tenureForm, &t.ID, &t.Epoch, &t.Since)
	if err != nil || n != 3 || t.String() != s || t.Epoch == 0 || t.Since > t.Epoch {
		return Tenure{}, false
	}
	return t, true
}
