package topology

import (
	"cmp"
	"os"
	"strings"
	"text/template"
)

const file = `cluster "lab" {
  rto      = "{{.RTO}}"
  data_dir = "{{.Dir}}/nodes/${node.name}/data"
{{if .Fences}}  fencing  = "required"
{{end}}}
{{range .Nodes}}node "{{.Name}}" {
{{- if .Witness}}
  role    = "witness"{{end}}
  address = "{{.Repl}}:7400"
  links   = ["{{.HB1}}:7401", "{{.HB2}}:7401"]
  http    = ""
}
{{end}}{{.Link}}
volume "vol" {
  size = "{{.Size}}"
  mode = "{{.Mode}}"
{{range .Nodes}}{{if not .Witness}}  replica "{{.Name}}" { device = "{{$.Dir}}/nodes/{{.Name}}/vol.img" }
{{end}}{{end}}  export {
    nbd    = ["tcp://${node.host}:10809"]
    attach = "none"
  }
{{.Extra}}
}
{{.Fences}}`

// writeConfig writes cluster.hcl, one file for all nodes.
func (l *Lab) writeConfig(s *State) error {
	type node struct {
		Name, Repl, HB1, HB2 string
		Witness              bool
	}
	var nodes []node
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Role == Host {
			continue
		}
		nodes = append(nodes, node{n.Name, s.Address(n, Replication), s.Address(n, Heartbeat1), s.Address(n, Heartbeat2), n.Role == Witness})
	}
	var text strings.Builder
	err := template.Must(template.New("cluster.hcl").Parse(file)).Execute(&text, map[string]any{
		"RTO": s.Config.RTO, "Dir": l.Dir, "Nodes": nodes, "Size": s.Config.Size, "Mode": cmp.Or(s.Config.Mode, "sync"), "Extra": s.Config.Extra, "Link": s.Config.Link, "Fences": strings.ReplaceAll(s.Config.Fences, "{lab}", l.Name),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(l.File(), []byte(text.String()), 0o644)
}
