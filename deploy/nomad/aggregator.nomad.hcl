# Two aggregators: one view of all clients that run agent.nomad.hcl in a fleet. They keep nothing and need nothing of their host.
# `nomad job run -var=etcd_servers=https://etcd-0:2379,https://etcd-1:2379 aggregator.nomad.hcl`, and what etcd wants to see in a
# Nomad variable: `nomad var put nomad/jobs/csi-gateway-aggregator ca=@ca.pem cert=@aggregator.pem key=@aggregator-key.pem`.

variable "image" {
  type        = string
  default     = "csi-gateway:v0.1.0"
  description = "The image, as your registry calls it."
}

variable "etcd_servers" {
  type        = string
  default     = "https://etcd.service.consul:2379"
  description = "Members of the fleet's etcd, with commas. https:// needs ca, cert and key in the job's Nomad variable."
}

variable "etcd_username" {
  type        = string
  default     = ""
  description = "User of etcd to act as, whose password is in the job's Nomad variable; empty: nobody."
}

variable "port" {
  type        = number
  default     = 4650
  description = "The port on the clients that have one; the agents have 4649."
}

locals {
  is_tls = contains([for server in split(",", var.etcd_servers) : split(":", server)[0]], "https")
  fleet = concat(
    ["--role=aggregator", "--etcd-servers=${var.etcd_servers}"],
    local.is_tls ? [
      "--etcd-cafile=/secrets/ca.pem",
      "--etcd-certfile=/secrets/cert.pem",
      "--etcd-keyfile=/secrets/key.pem",
    ] : [],
    var.etcd_username == "" ? [] : ["--etcd-username=${var.etcd_username}", "--etcd-password-file=/secrets/password"],
  )
  # Names in the Nomad variable, and the files that they become.
  files = merge(
    local.is_tls ? { ca = "ca.pem", cert = "cert.pem", key = "key.pem" } : {},
    var.etcd_username == "" ? {} : { password = "password" },
  )
}

job "csi-gateway-aggregator" {
  datacenters = ["*"]
  type        = "service"

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  update {
    max_parallel = 1
    health_check = "checks"
  }

  # Not all in one place that can fail.
  spread {
    attribute = "${node.datacenter}"
  }

  group "aggregator" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      port "http" {
        static = var.port
      }
    }

    service {
      name     = "csi-gateway-fleet"
      port     = "http"
      provider = "nomad" # or "consul"
      tags     = ["metrics"]

      check {
        name     = "the fleet is loaded"
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "3s"
      }

      # Restarts it when it hangs itself; an etcd that does not answer is no reason.
      check {
        name     = "alive"
        type     = "http"
        path     = "/livez"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "csi-gateway" {
      driver = "docker"
      user   = "65532:65532"

      config {
        image = var.image
        args = concat([
          "serve",
          "--http-endpoint=:${var.port}",
        ], local.fleet)
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      # Read anew for each connection to etcd, so nothing restarts when they change.
      dynamic "template" {
        for_each = local.files
        content {
          data        = "{{ with nomadVar \"nomad/jobs/csi-gateway-aggregator\" }}{{ .${template.key} }}{{ end }}"
          destination = "secrets/${template.value}"
          change_mode = "noop"
          perms       = "0400"
          uid         = 65532
          gid         = 65532
        }
      }

      logs {
        max_files     = 2
        max_file_size = 5
      }

      resources {
        cpu        = 100
        memory     = 96
        memory_max = 256
      }
    }
  }
}
