package main

import (
	"testing"
	"time"
)

func TestQuantileIsANumberThatOccurred(t *testing.T) {
	var ten []time.Duration
	for i := range 10 {
		ten = append(ten, time.Duration(10-i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 5, 0.51: 6, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(ten, q); got != want {
			t.Errorf("quantile %v of 1..10 is %d, want %d", q, got, want)
		}
	}
	if got := quantile([]time.Duration{7}, 0.01); got != 7 {
		t.Errorf("of one value: %d", got)
	}
}

func TestReportFailsOverTheLimit(t *testing.T) {
	rounds := []round{{wait: time.Second}, {wait: 1500 * time.Millisecond}}
	if err := report(rounds, 1, 1500*time.Millisecond); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := report(rounds, 1, 1499*time.Millisecond); err == nil {
		t.Error("above the limit: no error")
	}
	rounds[0].rosy = true
	if err := report(rounds, 1, 1500*time.Millisecond); err == nil {
		t.Error("a record that claims too little: no error")
	}
}
