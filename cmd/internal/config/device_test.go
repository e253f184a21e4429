package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoVolumes is a cluster on machines of its own, whose node alpha uses two device paths.
func twoVolumes(address, one, two string) string {
	return fmt.Sprintf(`
cluster "lab" {}
node "alpha" { address = "%[1]s:7400" }
node "beta" { address = "%[1]s:7500" }
volume "one" {
  size = "1MiB"
  replica "alpha" { device = %[2]q }
}
volume "two" {
  size = "1MiB"
  replica "alpha" { device = %[3]q }
}
`, address, one, two)
}

// faults.md C73: the same device for two volumes, under one name or several.
func TestC73OneDeviceBehindTwoNames(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(name, target string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hard := filepath.Join(dir, "hard")
	if err := os.Link(file, hard); err != nil {
		t.Fatal(err)
	}
	link("loop", "loop")
	tests := []struct {
		name, one, two string
		same           bool
	}{
		{"the same path", file, file, true},
		{"a symbolic link", file, link("link", "disk"), true},
		{"a link to a link", link("link2", "link"), file, true},
		{"a link to the folder", file, filepath.Join(link("folder", dir), "disk"), true},
		{"a hard link", file, hard, true},
		{"a link to a file that is absent yet", filepath.Join(dir, "new"), link("tonew", filepath.Join(dir, "new")), true},
		{"absent yet, by a link to the folder", filepath.Join(dir, "new"), filepath.Join(dir, "folder", "new"), true},
		{"two files", file, filepath.Join(dir, "other"), false},
		{"a link that leads to itself", file, filepath.Join(dir, "loop"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, o := range []struct{ address, node string }{{"127.0.0.1", ""}, {"10.0.0.1", "alpha"}} {
				_, err := check("cluster.hcl", []byte(twoVolumes(o.address, tt.one, tt.two)), Options{Node: o.node})
				refused := err != nil && strings.Contains(err.Error(), "cluster.hcl:11: device used twice")
				if refused != tt.same || (err != nil) != tt.same {
					t.Errorf("address %s, node %q: %v", o.address, o.node, err)
				}
			}
		})
	}
}

func TestDevicesOfOtherMachinesAreComparedByNameOnly(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("disk", link); err != nil {
		t.Fatal(err)
	}
	src := []byte(twoVolumes("10.0.0.1", filepath.Join(dir, "disk"), link))
	if _, err := check("cluster.hcl", src, Options{Node: "beta"}); err != nil {
		t.Errorf("what a path means on alpha, beta cannot know: %v", err)
	}
	if _, err := check("cluster.hcl", []byte(twoVolumes("10.0.0.1", "/dev/a", "/dev/a")), Options{Node: "beta"}); err == nil {
		t.Error("one name for two devices of a node is wrong, wherever it is read")
	}
}
