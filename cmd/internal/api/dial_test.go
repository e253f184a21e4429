package api_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
)

// silent listens, and the kernel accepts for it, but nobody ever speaks: a stopped process.
func silent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "silent.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return path
}

// rude hangs up on whoever calls.
func rude(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rude.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return path
}

func TestFirstServerThatAnswersServes(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent.sock")
	second := &apitest.Node{}
	third := &apitest.Node{}
	socket := apitest.Serve(t, second)
	c := dial(t, absent, rude(t), socket, apitest.Serve(t, third))
	if c.Server != socket {
		t.Errorf("%s serves", c.Server)
	}
	if err := c.NodeAdd(within(t), "x"); err != nil {
		t.Fatal(err)
	}
	if len(second.Calls()) != 1 || len(third.Calls()) != 0 {
		t.Errorf("asked were %v and %v", second.Calls(), third.Calls())
	}
}

func TestSilentServerDoesNotHoldUpTheOthers(t *testing.T) {
	// Half of it is lost on the silent one; the other half is plenty for the one that answers.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	socket := apitest.Serve(t, &apitest.Node{})
	c, err := api.Dial(ctx, []string{silent(t), socket}, api.DialSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Server != socket {
		t.Errorf("%s serves", c.Server)
	}
}

func TestNobodyAnswers(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent.sock")
	servers := []string{absent, rude(t), silent(t)}
	const noGRPC = "no gRPC is spoken there"
	var err error
	for limit := 300 * time.Millisecond; limit < time.Minute; limit *= 2 { // the rude one's share is to be enough, on a busy machine too
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		_, err = api.Dial(ctx, servers, api.DialSocket)
		cancel()
		if api.KindOf(err) != api.KindUnavailable {
			t.Fatalf("%v", err)
		}
		if strings.Contains(err.Error(), noGRPC) {
			break
		}
	}
	for _, want := range []string{"nobody answers", absent, "no such file", noGRPC, "silent.sock (no answer in time)", "is haclusterd running"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := api.Dial(within(t), nil, api.DialSocket); api.KindOf(err) != api.KindUsage {
		t.Errorf("no server at all: %v", err)
	}
}

func TestDialersOwnErrorIsTold(t *testing.T) {
	_, err := api.Dial(within(t), []string{"10.0.0.1:7400"}, func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("not a loopback address")
	})
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "10.0.0.1:7400 (not a loopback address)") {
		t.Errorf("%v", err)
	}
}

func TestCallIsNotPassedOnForEver(t *testing.T) {
	hop := func(ctx context.Context) (context.Context, error) {
		out, err := api.Forward(ctx)
		if err != nil {
			return nil, err
		}
		md, _ := metadata.FromOutgoingContext(out)
		return metadata.NewIncomingContext(context.Background(), md), nil // as the next node sees it
	}
	ctx, err := hop(context.Background())
	if err == nil {
		ctx, err = hop(ctx)
	}
	if err != nil {
		t.Fatalf("to the leader and once more: %v", err)
	}
	if _, err = hop(ctx); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("a third time: %v", err)
	}
	forged := metadata.NewIncomingContext(context.Background(), metadata.Pairs("hacluster-hops", "-5"))
	if _, err := hop(forged); err == nil {
		t.Error("a negative number of hops was taken")
	}
}
