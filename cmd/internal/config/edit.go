package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// WithoutVolume is the text of a configuration without the block of a volume. Everything else, comments and the order of
// things included, stays as it was written; the comment directly above the block goes with it.
func WithoutVolume(src []byte, name string) ([]byte, error) {
	f, b, err := volumeBlock(src, name)
	if err != nil {
		return nil, err
	}
	f.Body().RemoveBlock(b)
	return f.Bytes(), nil
}

// WithVolumeSize is the text of a configuration in which a volume has another size.
func WithVolumeSize(src []byte, name string, bytes int64) ([]byte, error) {
	f, b, err := volumeBlock(src, name)
	if err != nil {
		return nil, err
	}
	b.Body().SetAttributeValue("size", cty.StringVal(bytesText(bytes)))
	return f.Bytes(), nil
}

func volumeBlock(src []byte, name string) (*hclwrite.File, *hclwrite.Block, error) {
	f, diags := hclwrite.ParseConfig(src, "cluster.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, nil, fmt.Errorf("read the configuration: %w", diags)
	}
	var others []string
	for _, b := range f.Body().Blocks() {
		if b.Type() != "volume" {
			continue
		}
		if slices.Equal(b.Labels(), []string{name}) {
			return f, b, nil
		}
		others = append(others, b.Labels()...)
	}
	return nil, nil, fmt.Errorf("the configuration has no volume %q: it has %s", name, known(others))
}
