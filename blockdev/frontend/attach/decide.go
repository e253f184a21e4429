package attach

import "fmt"

// View is what the daemon knows about one volume and its device here.
type View struct {
	Wanted  bool   // the configuration has a device of it on this node
	Exists  bool   // the cluster has the volume; true as long as the record may be older than the Server
	Primary string // by the newest record; empty: nobody, or the record may be older than the Server
	Epoch   uint64 // of that record
	Since   uint64 // the epoch since which Primary is, without a break; 0: not known
	Self    string // this node
	Serves  bool   // this node answers clients
	Leaving bool   // a hand-over is under way: the device is let go, and not made anew

	Server     bool   // a Server runs
	Left       bool   // none runs, and one that was killed left something
	Told       uint64 // the epoch in which requests of the Server went out, as it last told; 0: it did not
	Replaced   bool   // the Server told of a volume that was deleted since, and another has its name
	Size       int64  // of the volume as clients see it
	DeviceSize int64  // as the Server last told; 0: it did not
}

// Action is what is done next about a device.
type Action int

// The actions. Each ends before the next is decided.
const (
	Nothing Action = iota
	Clean          // clear away what a killed Server left
	Start          // a Server
	Release        // ask the Server to let go if nobody uses the device
	Abandon        // have the Server end what it holds with errors, and go
	Resize         // have the device take the size of the volume
	Status         // ask the Server, of which nothing is known yet
)

// Decide says what to do, and, for people, why there is no device or why it goes.
func Decide(v View) (a Action, why string) {
	if v.Server {
		return decideRunning(v)
	}
	switch {
	case v.Left:
		return Clean, "a server process of the device was killed"
	case !v.Wanted:
		return Nothing, "attach is none"
	case v.Primary != v.Self:
		return Nothing, "this node is not primary"
	case !v.Serves:
		return Nothing, "this node does not serve yet"
	case v.Leaving:
		return Nothing, "the volume is being handed over"
	}
	return Start, ""
}

func decideRunning(v View) (Action, string) {
	switch {
	case !v.Exists:
		return Abandon, "the volume was deleted"
	case v.Told == 0:
		return Status, ""
	case v.Replaced:
		return Abandon, "the volume was deleted, and another one has its name now"
	case v.Epoch > v.Told && v.Primary != "" && v.Primary != v.Self:
		// At a higher epoch than any in which this one answered: what it holds may be older than what the other wrote.
		return Abandon, fmt.Sprintf("%s is primary", v.Primary)
	case v.Epoch > v.Told && (v.Since == 0 || v.Since > v.Told):
		// What Hold says of the next connection; but a device without requests makes none, and is read from the page cache.
		return Abandon, broken(v.Told, v.Epoch)
	case v.Leaving:
		return Nothing, "the volume is being handed over"
	case !v.Wanted:
		return Release, "attach is none"
	case v.Serves && v.DeviceSize != 0 && v.Size != v.DeviceSize:
		return Resize, ""
	}
	return Nothing, ""
}
