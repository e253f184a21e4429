cluster "shop" {
  rto      = "3s"                     # target for every failover; all timers follow from it
  data_dir = "/var/lib/hacluster"
}

node "alpha" {
  address = "10.0.0.1:7400"           # one TCP port: replication, admin, Raft; mTLS with ALPN (with --insecure: a short preface tells them apart)
  links   = ["10.0.0.1:7401", "192.168.7.1:7401"]   # heartbeat links (UDP+TCP, AES-GCM), one for each cable
  http    = "127.0.0.1:7480"          # /metrics, /healthz, /readyz, dashboard; "" = off
}
node "beta" {
  address = "10.0.0.2:7400"
  links   = ["10.0.0.2:7401", "192.168.7.2:7401"]
}
node "gamma" {
  role    = "witness"                 # votes, holds no data
  address = "10.0.0.3:7400"
  links   = ["10.0.0.3:7401"]
}

volume "pgdata" {
  size = "20GiB"
  mode = "sync"                       # sync | semisync | async
  replica "alpha" { device = "/dev/vg0/pgdata" }    # a block device, or a file (made sparse when absent)
  replica "beta" {
    device = "/dev/vg0/pgdata"
  }
  export {
    nbd    = ["unix:///run/hacluster/${node.name}-pgdata.sock"]   # also tcp://host:port; volumes may share a tcp listener
    attach = "auto"                   # auto | ublk | nbd | fuse | none: a local /dev/hacluster/pgdata on the primary
  }
  async {                             # the enforced RPO; ignored while the mode is not async
    max_lag_bytes = "64MiB"
    max_lag       = "5s"
    patience      = "10s"             # at the bound for this long: the standby is dropped
  }
  suspend_limit = "60s"               # without lease or quorum for longer: clients' connections are closed (R11)
}

service "postgres" {                  # follows the primary
  volumes = ["pgdata"]
  mount "/srv/pg" {
    volume = "pgdata"
    fs     = "ext4"
  }
  address "10.0.0.100/24" { interface = "eth0" }
  systemd "postgresql.service" {}
}

fence "alpha" {                       # several per node: levels are tried in order, all agents of a level must succeed
  level   = 1
  agent   = "fence_ipmilan"
  options = { ip = "10.9.0.1", username = "admin", password_file = "/etc/hacluster/ipmi.pw" }
}
