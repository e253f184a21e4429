// Package apitest has an api.Node for tests: it answers what it was told to, remembers what it was asked, and can be
// served on a real socket. Tests of the admin service and of ha-admin use it; programs do not.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

// Node answers with its fields. They must not be changed while it is served.
type Node struct {
	Err      error // the answer to everything, if set
	Doc      api.Status
	Moved    api.Failover
	Past     []api.Failover
	Volumes  []api.Volume
	Members  []api.Member
	Journal  []api.Event
	More     chan api.Event // with follow: what happens after Journal; closed: the node ends the stream
	Settings config.Document
	Text     api.ConfigText
	Plan     api.Applied
	Begun    api.VerifyBegun
	Group    string
	Rescued  []api.RescueImage
	Parts    []api.RescuePart
	Fenced   api.FenceRecord
	Tested   api.FenceTested
	// Block, if set, holds every call until it is closed or the call's context ends; Entered is told of each such call.
	Block   chan struct{}
	Entered chan struct{}

	mu    sync.Mutex
	calls []string
}

var _ api.Node = (*Node)(nil)

// Calls are the questions so far, in Go's notation.
func (n *Node) Calls() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.calls...)
}

func (n *Node) called(ctx context.Context, name string, args ...any) error {
	n.mu.Lock()
	call := name
	for _, a := range args {
		call += fmt.Sprintf(" %+v", a)
	}
	n.calls = append(n.calls, call)
	n.mu.Unlock()
	if n.Block != nil {
		n.Entered <- struct{}{}
		select {
		case <-n.Block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return n.Err
}

// Status answers Doc.
func (n *Node) Status(ctx context.Context, volume string) (*api.Status, error) {
	return &n.Doc, n.called(ctx, "Status", volume)
}

// Failover answers Moved.
func (n *Node) Failover(ctx context.Context, r api.FailoverRequest) (api.Failover, error) {
	return n.Moved, n.called(ctx, "Failover", r)
}

// Failovers answers Past.
func (n *Node) Failovers(ctx context.Context) ([]api.Failover, error) {
	return n.Past, n.called(ctx, "Failovers")
}

// VolumeList answers Volumes.
func (n *Node) VolumeList(ctx context.Context) ([]api.Volume, error) {
	return n.Volumes, n.called(ctx, "VolumeList")
}

// VolumeCreate answers Err.
func (n *Node) VolumeCreate(ctx context.Context, r api.VolumeCreateRequest) error {
	return n.called(ctx, "VolumeCreate", r)
}

// VolumeResync answers Group.
func (n *Node) VolumeResync(ctx context.Context, r api.VolumeResyncRequest) (string, error) {
	return n.Group, n.called(ctx, "VolumeResync", r)
}

// VolumePause answers Group.
func (n *Node) VolumePause(ctx context.Context, r api.VolumePauseRequest) (string, error) {
	return n.Group, n.called(ctx, "VolumePause", r)
}

// VolumeVerify answers Begun.
func (n *Node) VolumeVerify(ctx context.Context, r api.VolumeVerifyRequest) (api.VerifyBegun, error) {
	return n.Begun, n.called(ctx, "VolumeVerify", r)
}

// RescueList answers Rescued.
func (n *Node) RescueList(ctx context.Context, volume string) ([]api.RescueImage, error) {
	return n.Rescued, n.called(ctx, "RescueList", volume)
}

// RescueExport sends Parts and answers Err.
func (n *Node) RescueExport(ctx context.Context, r api.RescueExportRequest, send func(api.RescuePart) error) error {
	for _, p := range n.Parts {
		if err := send(p); err != nil {
			return err
		}
	}
	return n.called(ctx, "RescueExport", r)
}

// RescueDelete answers Err.
func (n *Node) RescueDelete(ctx context.Context, volume, id string) error {
	return n.called(ctx, "RescueDelete", volume, id)
}

// NodeList answers Members.
func (n *Node) NodeList(ctx context.Context) ([]api.Member, error) {
	return n.Members, n.called(ctx, "NodeList")
}

// NodeAdd answers Err.
func (n *Node) NodeAdd(ctx context.Context, name string) error {
	return n.called(ctx, "NodeAdd", name)
}

// NodeRemove answers Err.
func (n *Node) NodeRemove(ctx context.Context, name string) error {
	return n.called(ctx, "NodeRemove", name)
}

// NodeDrain answers Err.
func (n *Node) NodeDrain(ctx context.Context, name string, drained bool) error {
	return n.called(ctx, "NodeDrain", name, drained)
}

// Maintenance answers Err.
func (n *Node) Maintenance(ctx context.Context, on bool) error {
	return n.called(ctx, "Maintenance", on)
}

// Fence answers Err, or what Fenced says.
func (n *Node) Fence(ctx context.Context, name, person string) (api.FenceRecord, error) {
	return n.Fenced, n.called(ctx, "Fence", name, person)
}

// FenceConfirm answers Err.
func (n *Node) FenceConfirm(ctx context.Context, name string) error {
	return n.called(ctx, "FenceConfirm", name)
}

// FenceTest answers Err, or what Tested says.
func (n *Node) FenceTest(ctx context.Context, name string) (api.FenceTested, error) {
	return n.Tested, n.called(ctx, "FenceTest", name)
}

// Events sends Journal and, with follow, what comes through More.
func (n *Node) Events(ctx context.Context, follow bool, send func(api.Event) error) error {
	if err := n.called(ctx, "Events", follow); err != nil {
		return err
	}
	for _, e := range n.Journal {
		if err := send(e); err != nil {
			return err
		}
	}
	for follow {
		select {
		case e, ok := <-n.More:
			if !ok {
				return nil
			}
			if err := send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ConfigShow answers Settings.
func (n *Node) ConfigShow(ctx context.Context) (config.Document, error) {
	return n.Settings, n.called(ctx, "ConfigShow")
}

// ConfigExport answers Text.
func (n *Node) ConfigExport(ctx context.Context) (api.ConfigText, error) {
	return n.Text, n.called(ctx, "ConfigExport")
}

// Apply answers Plan.
func (n *Node) Apply(ctx context.Context, r api.ApplyRequest) (api.Applied, error) {
	return n.Plan, n.called(ctx, "Apply", fmt.Sprintf("{%s %d bytes plan:%t on:%d disconnect:%t delete:%t lose:%t}", r.Name, len(r.File), r.PlanOnly, r.OnVersion, r.DisconnectClients, r.DeleteData, r.AcceptDataLoss))
}

// Serve serves n on a unix socket, for as long as the test runs, and gives its path.
func Serve(t *testing.T, n api.Node) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "admin.sock")
	ServeAt(t, n, socket)
	return socket
}

// ServeAt is Serve on a socket of a given path. stop ends it early.
func ServeAt(t *testing.T, n api.Node, socket string) (stop func()) {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return ServeOn(t, n, ln)
}

// ServeOn is Serve on any listener.
func ServeOn(t *testing.T, n api.Node, ln net.Listener) (stop func()) {
	t.Helper()
	s := grpc.NewServer(api.ServerOptions()...)
	api.Register(s, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began: nobody asked
			t.Errorf("serve the admin service: %v", err)
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			s.Stop()
			<-done
		})
	}
	t.Cleanup(stop)
	return stop
}
