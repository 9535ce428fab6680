# The agent on every Nomad client: finds the sockets of all CSI plugins of its host, and serves what it learns.
# Needs client.hcl on the clients. `nomad job run -var=image=images.example.com/csi-gateway:v0.1.0 agent.nomad.hcl`
#
# In a fleet, with aggregator.nomad.hcl: `-var=etcd_servers=https://etcd-0:2379,https://etcd-1:2379`, and what etcd wants to see in a
# Nomad variable: `nomad var put nomad/jobs/csi-gateway ca=@ca.pem cert=@agent.pem key=@agent-key.pem` (with etcd_username: password=…).

variable "image" {
  type        = string
  default     = "csi-gateway:v0.1.0"
  description = "The image, as your registry calls it."
}

variable "port" {
  type        = number
  default     = 4649
  description = "The port on every client."
}

variable "etcd_servers" {
  type        = string
  default     = ""
  description = "Members of the fleet's etcd, with commas; empty: no fleet. https:// needs ca, cert and key in the job's Nomad variable."
}

variable "etcd_username" {
  type        = string
  default     = ""
  description = "User of etcd to act as, whose password is in the job's Nomad variable; empty: nobody."
}

locals {
  is_tls = contains([for server in split(",", var.etcd_servers) : split(":", server)[0]], "https")
  fleet = concat(
    var.etcd_servers == "" ? [] : ["--role=agent", "--etcd-servers=${var.etcd_servers}"],
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

job "csi-gateway" {
  datacenters = ["*"]
  type        = "system"

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  update {
    max_parallel = 1
    stagger      = "10s"
  }

  group "agent" {
    network {
      port "http" {
        static = var.port
      }
    }

    # <state_dir>/csi of the client, see client.hcl.
    volume "csi" {
      type      = "host"
      source    = "nomad-csi"
      read_only = true
    }

    # What was learnt is there again after an update of the job on the same client.
    ephemeral_disk {
      size   = 64
      sticky = true
    }

    service {
      name     = "csi-gateway"
      port     = "http"
      provider = "nomad" # or "consul"
      tags     = ["metrics"]

      check {
        name     = "every driver was looked at"
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "3s"
      }

      # Restarts the agent when it hangs itself; a driver that is ill is no reason.
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

      config {
        image = var.image
        args = concat([
          "serve",
          "--nomad-state-dir=/nomad",
          "--host-id=${node.unique.id}",
          "--state-dir=${NOMAD_ALLOC_DIR}/data",
          "--http-endpoint=:${var.port}",
        ], local.fleet)
        ports           = ["http"]
        readonly_rootfs = true
        # Root, for Nomad's directories are root's; the one capability opens sockets of drivers that run as somebody else.
        cap_drop = ["all"]
        cap_add  = ["dac_override"]
      }

      volume_mount {
        volume      = "csi"
        destination = "/nomad/csi"
        read_only   = true
        # Volumes are staged below it. A private mount would hold them after the host has unmounted them.
        propagation_mode = "host-to-task"
      }

      # Read anew for each connection to etcd, so nothing restarts when they change.
      dynamic "template" {
        for_each = local.files
        content {
          data        = "{{ with nomadVar \"nomad/jobs/csi-gateway\" }}{{ .${template.key} }}{{ end }}"
          destination = "secrets/${template.value}"
          change_mode = "noop"
          perms       = "0400"
        }
      }

      logs {
        max_files     = 2
        max_file_size = 5
      }

      resources {
        cpu        = 50
        memory     = 64
        memory_max = 128
      }
    }
  }
}
