# Configuration of `csi-gateway serve --config=FILE`, with every key and its default. What has none is a comment.
# `csi-gateway config check --config=FILE` says what is wrong, `config show` what counts and where it comes from.
# A variable (CSI_GATEWAY_POLL_INTERVAL) wins over a key (poll_interval), a flag (--poll-interval) over both.
# Durations are Go's: 500ms, 30s, 1m30s. JSON with the same keys does as well.

# Socket of a CSI driver, unix:///csi/csi.sock; may be repeated with `serve`, which takes CSI_ENDPOINT and
# searches the usual places where no source is given
# csi_address = ["SOCKET"]

# Directory of sockets, DIR/*/csi.sock; may be repeated
# csi_plugins_dir = ["DIR"]

# A kubelet's root directory, /var/lib/kubelet: its registrations, plugins and pods' volumes are searched
# kubelet_dir = "DIR"

# A Nomad client's state directory, /opt/nomad/data/client: its allocations' sockets are searched
# nomad_state_dir = "DIR"

# Where the host's root is seen, in a container: stands before the usual places and paths that drivers
# announce
# host_root = "DIR"

# Plugin id of the only address; default: the driver's name
# plugin_id = "ID"

# What is expected to answer: controller, node, monolith (both) or auto (whatever does)
plugin_type = "auto"

# This host's id; default: NODE_NAME and its kin, Nomad's client-id, the hostname
# host_id = "ID"

# A Nomad server or client to ask who runs the drivers in --nomad-state-dir: http://HOST:PORT,
# https://HOST:PORT or unix:///PATH; over TLS with NOMAD_CACERT and its kin
# nomad_addr = "URL"

# File with the token for --nomad-addr, read before each question; default: NOMAD_TOKEN, or the task's own
# identity
# nomad_token_file = "FILE"

# From one look at a driver to the next
poll_interval = "30s"

# Limit of a Probe call
probe_timeout = "3s"

# Limit of any other call; NodeGetInfo has three times that
timeout = "5s"

# Where to serve: HOST:PORT (port 0 picks one) or unix:///PATH; may be repeated
http_endpoint = ["127.0.0.1:4649"]

# PEM file of the certificate to show, and those between it and its authority: over TCP only TLS is spoken
# then. Files of TLS are read anew when they change
# tls_cert_file = "FILE"

# PEM file of its private key
# tls_key_file = "FILE"

# PEM file of the authorities that may have signed clients' certificates
# tls_client_ca_file = "FILE"

# Whether clients have to show a certificate: none, optional or required; default: required with
# --tls-client-ca-file, else none
# tls_client_auth = "WHO"

# Who may connect to unix sockets of --http-endpoint, in octal: 0660; default: as the umask says
# socket_mode = "MODE"

# Whose those sockets are, names or numbers: USER, USER:GROUP or :GROUP; default: whoever runs this
# socket_owner = "USER:GROUP"

# Connections of one client address, over TCP; 0: as many as it likes
max_conns_per_client = 100

# Where state is kept; default: $STATE_DIRECTORY, /var/lib/csi-gateway, $XDG_STATE_HOME/csi-gateway, or memory
# state_dir = "DIR"

# Shape of a plugin when it is read: nomad (what its servers send) or documented (what its public page shows)
api_read_shape = "nomad"

# The region that clients may ask for
region = "global"

# How long an instance is kept whose socket is gone, or has nobody listening
retire_gone = "1h"

# How long the instances of a host are kept whose agent is silent (fleets only)
retire_lost = "24h"

# Part in a fleet, with --etcd-servers: agent (this host, told to etcd, too) or aggregator (the whole fleet,
# from etcd)
# role = "ROLE"

# Members of the fleet's etcd: https://HOST:PORT or http://HOST:PORT, several with commas; may be repeated
# etcd_servers = ["URL"]

# What the keys of this fleet begin with; two fleets in one etcd have two prefixes
etcd_prefix = "/csi-gateway/v1/"

# PEM file of the authorities that may have signed etcd's certificates; default: those that the system trusts
# etcd_cafile = "FILE"

# PEM file of the certificate to show to etcd
# etcd_certfile = "FILE"

# PEM file of its private key
# etcd_keyfile = "FILE"

# User of etcd to act as
# etcd_username = "NAME"

# File that holds that user's password; read at each login
# etcd_password_file = "FILE"

# How long an agent may be silent before its host counts as lost; whole seconds
host_ttl = "30s"

# Host headers that `forget` is taken from; default: names and addresses listened on, localhost
# allowed_hosts = ["NAME"]

# Ask for tokens: whoever has none may do what the policy `anonymous` says, or nothing
# acl_enabled = true

# Directory of policies as Nomad's, NAME.hcl or NAME.json; read anew when one changes
# acl_policy_dir = "DIR"

# File of tokens, which `acl token create` writes and which holds no secret; read anew when it changes
# acl_tokens_file = "FILE"

# Keys of Nomad's workload identities: a file, or an address (http, https),
# http://NOMAD:4646/.well-known/jwks.json, asked again and again
# acl_jwks = "SOURCE"

# Whom identities have to be for (`aud`); may be repeated; default: that of Nomad's default identity
acl_jwt_audience = ["nomadproject.io"]

# What /metrics needs with --acl-enabled: agent-read (a token that may read the agent, as in Nomad) or open
acl_metrics = "agent-read"

# Transitions kept of each instance
history = 32

# How much is logged: 0 to 3 changes only, 4 every look, 5 everything
v = 2

# text or json
logging_format = "text"

# What should be there, whatever is found: how many nodes and controllers of a plugin, or on which hosts (a pattern
# of `*` and `?`) a node should run. A socket is watched as one of --csi-address is, under this id.
#
# plugin "ebs" {
#   socket               = "unix:///run/csi/ebs.sock"
#   type                 = "node" # controller, node, monolith or auto
#   nodes_expected       = 5
#   controllers_expected = 2
# }
#
# plugin "nfs" {
#   host_selector = "storage-*"
# }
