package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	adminv1 "hacluster/proto/admin/v1"
)

// Fencer turns nodes off (STONITH).
type Fencer interface {
	// Fence returns when the node's agents have turned it off, or could not, which is an error.
	// person is who asked the node that passes the call on; empty: the caller.
	Fence(ctx context.Context, name, person string) (FenceRecord, error)
	// FenceConfirm takes the caller's word that the node's machine is off. Of one that answers it is refused.
	FenceConfirm(ctx context.Context, name string) error
	// FenceTest asks the node's agents, from the node that is asked, whether they could. It turns nothing off.
	FenceTest(ctx context.Context, name string) (FenceTested, error)
}

// FenceRecord is what is known of fencing a node.
type FenceRecord struct {
	// Word is the newest: begun | off | failed | ended | confirmed | refuted.
	Word    string    `json:"word"`
	Attempt uint64    `json:"attempt"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`               // the node whose agents they were, or that took the word
	Person  string    `json:"person,omitempty"` // who confirmed it, or asked for it
	// Process is the newest one of the node that was known; the word is about it and all before it.
	Process    uint64 `json:"process"`
	Off        bool   `json:"off"` // the process that is registered now is known to be off
	Level      int    `json:"level,omitempty"`
	Unverified bool   `json:"unverified,omitempty"` // off by the agents' word alone: one has no status
	Failed     int    `json:"failed_tries"`         // in a row
	Text       string `json:"text,omitempty"`
}

// FenceDevice is an agent that can turn a node off.
type FenceDevice struct {
	Level int    `json:"level"`
	Agent string `json:"agent"`
	// Missing: it is not installed on the node that is asked, which could not fence as leader.
	Missing bool `json:"missing,omitempty"`
}

// FenceStatus is how a node is fenced, and what came of it last.
type FenceStatus struct {
	Devices []FenceDevice `json:"devices"`
	Last    *FenceRecord  `json:"last"` // null: it was never to be fenced
	// Waits says which volumes nobody serves until the node is off; left out: none.
	Waits []string `json:"waits,omitempty"`
}

// FenceTested is what the agents of a node said.
type FenceTested struct {
	Node   string            `json:"node"`
	From   string            `json:"from"` // the node that asked them
	Agents []FenceTestedWith `json:"agents"`
}

// FenceTestedWith is what one said.
type FenceTestedWith struct {
	Level int    `json:"level"`
	Agent string `json:"agent"`
	OK    bool   `json:"ok"`
	State string `json:"state"` // of the node: on | off | unknown: the agent has no status
	Text  string `json:"text"`  // why it is not ok
	Ms    int64  `json:"ms"`
}

// OK: all of them could.
func (t FenceTested) OK() bool {
	for _, a := range t.Agents {
		if !a.OK {
			return false
		}
	}
	return len(t.Agents) > 0
}

// Fence has a node turned off.
func (c *Client) Fence(ctx context.Context, name, person string) (r FenceRecord, err error) {
	reply, err := c.rpc.Fence(ctx, &adminv1.FenceRequest{Name: name, Person: person})
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(reply.GetDocument(), &r); err != nil {
		return r, fmt.Errorf("read the answer of %s: %w", c.Server, err)
	}
	return r, nil
}

// FenceConfirm says that a node is off.
func (c *Client) FenceConfirm(ctx context.Context, name string) error {
	_, err := c.rpc.FenceConfirm(ctx, &adminv1.FenceConfirmRequest{Name: name})
	return err
}

// FenceTest asks the agents of a node.
func (c *Client) FenceTest(ctx context.Context, name string) (t FenceTested, err error) {
	reply, err := c.rpc.FenceTest(ctx, &adminv1.FenceTestRequest{Name: name})
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(reply.GetDocument(), &t); err != nil {
		return t, fmt.Errorf("read the answer of %s: %w", c.Server, err)
	}
	return t, nil
}

func (s *server) Fence(ctx context.Context, r *adminv1.FenceRequest) (*adminv1.FenceReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("fence: no node is named"))
	}
	rec, err := s.node.Fence(ctx, r.GetName(), r.GetPerson())
	if err != nil {
		return nil, refuse(ctx, err)
	}
	doc, err := json.Marshal(rec)
	return &adminv1.FenceReply{Document: doc}, refuse(ctx, err)
}

func (s *server) FenceConfirm(ctx context.Context, r *adminv1.FenceConfirmRequest) (*adminv1.FenceConfirmReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("fence confirm: no node is named"))
	}
	return &adminv1.FenceConfirmReply{}, refuse(ctx, s.node.FenceConfirm(ctx, r.GetName()))
}

func (s *server) FenceTest(ctx context.Context, r *adminv1.FenceTestRequest) (*adminv1.FenceTestReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("fence test: no node is named"))
	}
	t, err := s.node.FenceTest(ctx, r.GetName())
	if err != nil {
		return nil, refuse(ctx, err)
	}
	t.Agents = append([]FenceTestedWith{}, t.Agents...)
	doc, err := json.Marshal(t)
	return &adminv1.FenceTestReply{Document: doc}, refuse(ctx, err)
}
