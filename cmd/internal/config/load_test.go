package config

import (
	"testing"
)

func TestSample(t *testing.T) {
	rep, err := Check("testdata/sample.hcl", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + rep.Unsupported.Error())
	t.Log("\n" + rep.Config.Document().Table())
}
