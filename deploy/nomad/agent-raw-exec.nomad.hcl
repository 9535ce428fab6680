# The agent on every Nomad client without containers: the program lies on the hosts (the Debian package puts it there), or comes
# as an artifact. raw_exec has to be allowed; client.hcl is not needed. The systemd unit does the same under its own user.

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
        args = [
          "serve",
          "--nomad-state-dir=${var.nomad_state_dir}",
          "--host-id=${node.unique.id}",
          "--state-dir=${NOMAD_ALLOC_DIR}/data",
          "--http-endpoint=:${var.port}",
        ]
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
