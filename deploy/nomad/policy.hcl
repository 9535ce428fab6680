# What whoever asks for plugins needs, of Nomad and of csi-gateway alike: `nomad acl policy apply csi-readers policy.hcl`, or this
# file as csi-readers.hcl in --acl-policy-dir.

# Lists and reads plugins.
plugin {
  policy = "read"
}

# Sees the allocations of a plugin, and events.
namespace "*" {
  capabilities = ["read-job"]
}

# Scrapes /metrics, and asks who the agent is.
agent {
  policy = "read"
}
