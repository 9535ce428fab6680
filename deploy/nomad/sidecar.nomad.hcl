# A CSI plugin with csi-gateway beside it, in livenessprobe's place: the check asks the driver, and Nomad restarts the driver when
# it does not answer. The clients' docker plugin needs `volumes { enabled = true }` and `allow_privileged = true`, see client.hcl.

variable "image" {
  type        = string
  default     = "csi-gateway:v0.1.0"
  description = "The image, as your registry calls it."
}

variable "driver_image" {
  type        = string
  default     = "sig-storage/hostpathplugin:v1.17.0"
  description = "The driver's image."
}

variable "nomad_state_dir" {
  type        = string
  default     = "/opt/nomad/data/client"
  description = "The clients' state_dir; where none is configured, <data_dir>/client."
}

job "csi-hostpath" {
  datacenters = ["*"]
  type        = "system"

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  group "csi" {
    network {
      port "health" {}
    }

    service {
      name     = "csi-hostpath"
      port     = "health"
      provider = "nomad" # or "consul"
      task     = "driver"

      check {
        name     = "the driver answers"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "5s" # above --probe-timeout

        check_restart {
          limit = 5
          grace = "60s"
        }
      }
    }

    task "driver" {
      driver = "docker"

      csi_plugin {
        id             = "hostpath"
        type           = "monolith"
        mount_dir      = "/csi"
        health_timeout = "60s"
      }

      config {
        image      = var.driver_image
        privileged = true
        args = [
          "--drivername=hostpath.csi.k8s.io",
          "--endpoint=${CSI_ENDPOINT}",
          "--nodeid=${node.unique.id}",
        ]
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }

    task "csi-gateway" {
      driver = "docker"

      lifecycle {
        hook    = "poststart"
        sidecar = true
      }

      config {
        image = var.image
        args = [
          "--csi-address=/csi/csi.sock",
          "--http-endpoint=:${NOMAD_PORT_health}",
          "--probe-timeout=3s",
        ]
        ports           = ["health"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        cap_add         = ["dac_override"]

        # Nomad mounts the directory of a plugin's socket into that plugin's task only.
        mount {
          type     = "bind"
          source   = "${var.nomad_state_dir}/csi/plugins/${NOMAD_ALLOC_ID}"
          target   = "/csi"
          readonly = true

          bind_options {
            propagation = "rslave"
          }
        }
      }

      resources {
        cpu        = 20
        memory     = 32
        memory_max = 64
      }
    }
  }
}
