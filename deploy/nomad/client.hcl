# For the configuration of every Nomad client; merged with the rest, as /etc/nomad.d/csi-gateway.hcl for example.

client {
  enabled = true

  # For agent.nomad.hcl: <state_dir>/csi, where the sockets of this client's plugins are. A client does not start while it is not
  # there: deploy/systemd/tmpfiles.d/csi-gateway-nomad.conf makes it.
  host_volume "nomad-csi" {
    path      = "/opt/nomad/data/client/csi"
    read_only = true
  }
}

plugin "docker" {
  config {
    # CSI node plugins mount, and so run privileged.
    allow_privileged = true

    # Only for sidecar.nomad.hcl, which binds a directory of the host.
    volumes {
      enabled = true
    }
  }
}
