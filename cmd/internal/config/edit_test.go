package config

import (
	"strings"
	"testing"
)

func TestVolumeLeavesTheTextAndNothingElseDoes(t *testing.T) {
	src := loopback(t) + "\n# the logs\n" + second + "\n# the end\n"
	without, err := WithoutVolume([]byte(src), "logs")
	if err != nil {
		t.Fatal(err)
	}
	if got := running(t, string(without)); got.Hash() != running(t, loopback(t)).Hash() || len(got.Volumes) != 1 {
		t.Errorf("what is left means something else:\n%s", without)
	}
	if !strings.HasPrefix(string(without), loopback(t)) || !strings.HasSuffix(string(without), "# the end\n") || strings.Contains(string(without), "the logs") {
		t.Errorf("what is left reads\n%s", without)
	}
	_, err = WithoutVolume([]byte(src), "log")
	if err == nil || !strings.Contains(err.Error(), `no volume "log"`) || !strings.Contains(err.Error(), "pgdata, logs") {
		t.Errorf("a volume that is not there: %v", err)
	}
	if _, err := WithoutVolume([]byte("volume {"), "logs"); err == nil {
		t.Error("a broken text was edited")
	}
}

func TestSizeOfAVolumeChangesInTheText(t *testing.T) {
	src := strings.Replace(loopback(t), `size = "64MiB"`, `size = "64MiB" # as small as it gets`, 1)
	got, err := WithVolumeSize([]byte(src), "pgdata", 3<<30+4096)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(src, `"64MiB" #`, `"3145732KiB" #`, 1); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if v, _ := running(t, string(got)).Volume("pgdata"); v.Size != 3<<30+4096 {
		t.Errorf("read as %d", v.Size)
	}
}
