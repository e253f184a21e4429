package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// tool is a program that ends by its own time limit; asked to end earlier, it ends its children first.
func tool(ctx context.Context, name string, args ...string) (stdout []byte, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(append(errs.Bytes(), out.Bytes()...)))
	}
	return out.Bytes(), nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int(d.Seconds())) }

// stress keeps two cores busy, at the priority of everybody else.
func stress(ctx context.Context, d time.Duration) error {
	_, err := tool(ctx, "stress-ng", "--quiet", "--cpu", "2", "--timeout", seconds(d))
	return err
}

type fioResult struct {
	iops    float64
	errors  int
	slowest time.Duration
}

// fio reads and writes at random through its own NBD client.
func fio(ctx context.Context, uri string, d time.Duration) (r fioResult, err error) {
	out, err := tool(ctx, "fio", "--name=calm", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bs=4k", "--iodepth=4",
		fmt.Sprintf("--size=%d", fioSize), "--time_based", "--runtime="+seconds(d), "--output-format=json")
	if err != nil {
		return r, err
	}
	type side struct {
		IOPS float64 `json:"iops"`
		Clat struct {
			Max int64 `json:"max"`
		} `json:"clat_ns"`
	}
	var doc struct {
		Jobs []struct {
			Error    int  `json:"error"`
			TotalErr int  `json:"total_err"`
			Read     side `json:"read"`
			Write    side `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out[max(bytes.IndexByte(out, '{'), 0):], &doc); err != nil || len(doc.Jobs) != 1 {
		return r, fmt.Errorf("read what fio says: %w: %.200s", err, out)
	}
	j := doc.Jobs[0]
	r.iops = j.Read.IOPS + j.Write.IOPS
	r.errors = j.TotalErr
	if j.Error != 0 {
		r.errors = max(r.errors, 1)
	}
	r.slowest = time.Duration(max(j.Read.Clat.Max, j.Write.Clat.Max))
	return r, nil
}
