cluster "lab" {
  rto           = "3s"
  data_dir      = "/var/lib/hacluster/${node.name}"
  disk_deadline = "5s"
}

node "alpha" {
  address = "127.0.0.1:7400"
  links   = ["127.0.0.1:7401", "127.0.1.1:7401"]
  http    = "127.0.0.1:7480"
}
node "beta" {
  address = "127.0.0.2:7400"
  links   = ["127.0.0.2:7401", "127.0.1.2:7401"]
}
node "gamma" {
  role    = "witness"
  address = "127.0.0.3:7400"
}

volume "pgdata" {
  size = "64MiB"
  mode = "sync"
  io   = "auto"
  replica "alpha" { device = "/srv/${node.name}/${volume.name}.img" }
  replica "beta" {
    device = "/srv/${node.name}/${volume.name}.img"
  }
  export {
    nbd    = ["unix:///run/hacluster/${node.name}-${volume.name}.sock", "tcp://${node.host}:10809"]
    attach = "none"
  }
  async {
    max_lag_bytes = "64MiB"
    max_lag       = "5s"
    patience      = "10s"
  }
  suspend_limit = "60s"
}
