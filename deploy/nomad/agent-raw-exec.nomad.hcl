# The agent on every Nomad client without containers: the program lies on the hosts (the Debian package puts it there), or comes
# as an artifact. raw_exec has to be allowed; client.hcl is not needed. The systemd unit does the same under its own user.
# In a fleet: as agent.nomad.hcl.

variable "command" {
  type        = string
  default     = "/usr/bin/csi-gateway"
  description = "The program on the hosts."
}

variable "nomad_state_dir" {
  type        = string
  default     = "/opt/nomad/data/client"
  description = "The clients' state_dir; where none is configured, <data_dir>/client."
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
      "--etcd-cafile=${NOMAD_SECRETS_DIR}/ca.pem",
      "--etcd-certfile=${NOMAD_SECRETS_DIR}/cert.pem",
      "--etcd-keyfile=${NOMAD_SECRETS_DIR}/key.pem",
    ] : [],
    var.etcd_username == "" ? [] : ["--etcd-username=${var.etcd_username}", "--etcd-password-file=${NOMAD_SECRETS_DIR}/password"],
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
    }

    task "csi-gateway" {
      driver = "raw_exec"

      config {
        command = var.command
        args = concat([
          "serve",
          "--nomad-state-dir=${var.nomad_state_dir}",
          "--host-id=${node.unique.id}",
          "--state-dir=${NOMAD_ALLOC_DIR}/data",
          "--http-endpoint=:${var.port}",
        ], local.fleet)
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
