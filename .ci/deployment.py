"""Checks of the chart and the manifests under deploy/ by tools that are not ours: Helm's library, kubernetes-validate,
kustomize, a real API server.

    .ci/deployment.py chart
    .ci/deployment.py manifests KUSTOMIZE
    .ci/deployment.py apply KUSTOMIZE KUBERNETES
    .ci/deployment.py arguments KUSTOMIZE BINARY JOB…
    .ci/deployment.py fleet KUSTOMIZE BINARY ETCD

KUSTOMIZE and ETCD are programs, KUBERNETES is the folder that .ci/kubernetes makes, BINARY our own program, a JOB what Nomad makes
of a job's file. Run by .ci/deploy, which installs them.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

CHART = Path("deploy/helm/csi-gateway")
VERSIONS = ["1.30", "1.34", "1.37"]
# Kinds of operators, which no schema of Kubernetes knows.
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
TOKEN = "let-me-in"

# Sets of values, each with what only it brings.
VALUES = {
    "defaults": {},
    "another kubelet, SELinux, pods": {
        "kubeletDir": "/var/lib/k0s/kubelet",
        "selinux": {"type": "spc_t"},
        "agent": {"scanPods": True, "socketDir": ""},
    },
    "ACLs and a configuration file": {
        "acl": {"existingSecret": "csi-gateway-tokens", "policiesConfigMap": "csi-gateway-policies", "metrics": "open"},
        "config": 'plugin "nfs.csi.k8s.io" {\n  host_selector = "storage-*"\n}\n',
        "loggingFormat": "json",
    },
    "monitoring by pods, TLS": {
        "tls": {"existingSecret": "csi-gateway-tls", "clientAuth": "optional"},
        "agent": {"socketMode": "0666"},
        "metrics": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "tokenSecret": "csi-gateway-scraper", "tlsConfig": {"insecureSkipVerify": True}},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Storage"}},
        }
    },
    "monitoring by the service, network of the nodes": {
        "agent": {"hostNetwork": True, "port": 14649},
        "metrics": {"serviceMonitor": {"enabled": True, "interval": "1m"}},
        "networkPolicy": {"enabled": False},
    },
    "a fleet, its etcd with certificates": {
        "fleet": {"etcdServers": ["https://etcd-0:2379", "https://etcd-1"], "etcdTlsSecret": "etcd", "etcdClientCertificate": True, "hostTTL": "1m"},
        "aggregator": {"enabled": True, "replicas": 3, "spread": "DoNotSchedule"},
        "metrics": {"podMonitor": {"enabled": True}},
        "config": 'plugin "nfs.csi.k8s.io" {\n  host_selector = "storage-*"\n}\n',
    },
    "a fleet with a password, ACLs and TLS": {
        "fleet": {"etcdServers": ["http://10.0.0.1:12379"], "etcdPrefix": "/storage/", "etcdUsername": "csi", "etcdPasswordSecret": "etcd-password"},
        "aggregator": {
            "enabled": True,
            "port": 14649,
            "retireLost": "1h",
            "config": 'plugin "nfs.csi.k8s.io" {\n  nodes_expected = 3\n}\n',
            "extraArgs": ["--history=64"],
            "envFrom": [{"configMapRef": {"name": "more"}}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "updateStrategy": {"type": "Recreate", "rollingUpdate": None},
            "startupProbe": None,
            "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
            "serviceAccount": {"create": False},
            "env": [{"name": "RUST_LOG", "value": "csi_gateway=debug"}],
            "annotations": {"example.com/a": "b"},
            "podAnnotations": {"example.com/a": "b"},
            "podLabels": {"example.com/a": "b"},
            "priorityClassName": "system-cluster-critical",
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podDisruptionBudget": {"enabled": False},
            "service": {"type": "LoadBalancer", "annotations": {"example.com/a": "b"}},
        },
        # What only agents may have.
        "config": 'plugin "nfs.csi.k8s.io" {\n  socket = "/var/lib/kubelet/plugins/csi-nfsplugin/csi.sock"\n}\n',
        "agent": {"hostNetwork": True},
        "acl": {"existingSecret": "csi-gateway-tokens", "policiesConfigMap": "csi-gateway-policies"},
        "tls": {"existingSecret": "csi-gateway-tls"},
        "metrics": {"serviceMonitor": {"enabled": True}},
        "networkPolicy": {"egress": [{"ports": [{"port": 4646, "protocol": "TCP"}]}]},
    },
    "a fleet with a long name": {
        "fullnameOverride": "a-name-of-fifty-five-characters-as-the-schema-allows-it",
        "fleet": {"etcdServers": ["https://[fd00::1]"]},
        "aggregator": {"enabled": True},
    },
    "everything else": {
        "nameOverride": "gateway",
        "fullnameOverride": "storage-gateway",
        "commonLabels": {"team": "storage"},
        "image": {"registry": "images.example.com", "repository": "storage/csi-gateway", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "logLevel": 5,
        "service": {"enabled": False},
        "networkPolicy": {"from": [], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]},
        "agent": {
            "extraArgs": ["--history=64"],
            "env": [{"name": "RUST_LOG", "value": "csi_gateway=debug"}],
            "envFrom": [{"configMapRef": {"name": "more"}}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "annotations": {"example.com/a": "b"},
            "podAnnotations": {"example.com/a": "b"},
            "podLabels": {"example.com/a": "b"},
            "affinity": {"nodeAffinity": {}},
            "tolerations": [],
            "startupProbe": None,
            "serviceAccount": {"create": False, "name": "theirs"},
        },
    },
}
# Values that are wrong, and what the error has to name.
WRONG = [
    ({"kubeletdir": "/var/lib/kubelet"}, "kubeletdir"),
    ({"agent": {"pollInterval": "soon"}}, "pollInterval"),
    ({"agent": {"port": 70000}}, "port"),
    ({"agent": {"extraArgs": ["serve"]}}, "extraArgs"),
    ({"image": {"digest": "sha256:1"}}, "digest"),
    ({"loggingFormat": "xml"}, "loggingFormat"),
    ({"tls": {"clientAuth": "required"}}, "clientAuth"),
    ({"agent": {"socketMode": "rw"}}, "socketMode"),
    ({"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "twice"),
    ({"aggregator": {"enabled": True}}, "fleet.etcdServers"),
    ({"fleet": {"etcdTlsSecret": "etcd"}}, "fleet.etcdServers"),
    ({"fleet": {"etcdServers": ["etcd:2379"]}}, "etcdServers"),
    ({"fleet": {"etcdServers": ["https://etcd:2379"], "etcdClientCertificate": True}}, "etcdTlsSecret"),
    ({"fleet": {"etcdServers": ["http://etcd:2379"], "etcdTlsSecret": "etcd"}}, "https://"),
    ({"fleet": {"etcdServers": ["https://etcd:2379"], "hostTTL": "500ms"}}, "hostTTL"),
    ({"fleet": {"etcdServers": ["https://etcd:2379"], "etcdPasswordSecret": "etcd-password"}}, "etcdUsername"),
    ({"aggregator": {"extraArgs": ["--etcd-servers=https://etcd:2379"]}}, "extraArgs"),
    ({"fleet": {"etcdServers": ["https://etcd:2379"], "etcdUsername": "csi"}}, "etcdPasswordSecret"),
    ({"aggregator": {"spread": "Always"}}, "spread"),
    ({"service": {"enabled": False}, "metrics": {"serviceMonitor": {"enabled": True}}}, "service.enabled"),
]


class Wrong(Exception):
    """What was expected and is not so."""


def documents(text):
    return [one for one in yaml.safe_load_all(text) if one]


def has_alerts():
    return (CHART / "files/alerts.yaml").exists()


def value_sets():
    """The sets of values; without rules of alerts where there are none to take."""
    for name, values in VALUES.items():
        if not has_alerts() and "prometheusRule" in values.get("metrics", {}):
            metrics = {key: value for key, value in values["metrics"].items() if key != "prometheusRule"}
            values = {**values, "metrics": metrics}
        yield name, values


def validate(thing, where):
    """Against the schemas of every version; strict: an unknown field is an error."""
    if thing["kind"] in FOREIGN:
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            raise Wrong(f"{where}: {thing['kind']} against {version}: {path}: {error.message}") from error
        except kubernetes_validate.SchemaNotFoundError as error:
            raise Wrong(f"{where}: {error.message}") from error


def rendered(chart, values):
    """Objects of a release, and what its notes say."""
    made = chart.render(values, name="csi-gateway", namespace="csi-gateway")
    notes = next(text for path, text in made.items() if path.endswith("NOTES.txt"))
    things = [(path, thing) for path, text in made.items() if not path.endswith(".txt") for thing in documents(text)]
    return things, notes


def check_chart():
    with helm.Chart.load(CHART) as chart:
        for name, values in value_sets():
            for version in ["1.25", *VERSIONS]:
                report = helm.lint(CHART, values, strict=True, kube_version=f"v{version}.0")
                # 1 is a piece of advice.
                if report["errors"] or any(message["severity"] > 1 for message in report["messages"]):
                    raise Wrong(f"lint with {name}: {json.dumps(report, indent=1)}")
            things, notes = rendered(chart, values)
            for path, thing in things:
                validate(thing, f"{name}: {path}")
            if "/v1/plugins?type=csi" not in notes:
                raise Wrong(f"{name}: the notes do not say how to ask")
            kinds = sorted(thing["kind"] for _, thing in things)
            print(f"{name}: {', '.join(kinds)}")
        for values, word in WRONG:
            try:
                rendered(chart, values)
            except helm.HelmError as error:
                if word not in str(error):
                    raise Wrong(f"{values}: the error does not name {word}: {error}") from error
            else:
                raise Wrong(f"{values} were taken")
        known = set(leaves(chart.values))
        described = set(described_leaves())
        if known != described:
            raise Wrong(f"values without a comment, or the other way round: {sorted(known ^ described)}")
    print(f"{len(WRONG)} wrong sets were refused; {len(known)} values are described")


def leaves(values, prefix=""):
    """Names of values that hold something else than further named values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in COMPOUND:
            yield from leaves(value, f"{name}.")
        else:
            yield name


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# Values whose parts are Kubernetes' own words.
COMPOUND = {
    *(f"{component}.{name}" for component in ("agent", "aggregator") for name in ("resources", "nodeSelector", "updateStrategy", *PROBES)),
    "aggregator.podSecurityContext",
    "aggregator.containerSecurityContext",
    "podSecurityContext",
    "containerSecurityContext",
    "metrics.dashboards.labels",
}


def described_leaves():
    """Names of values in values.yaml that a comment `# -- ` stands above, or above a list of them in one place."""
    stack, is_described = [], False
    above = ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("# --"):
            is_described = True
        if not text or text.startswith(("#", "-")):
            continue
        depth = (len(line) - len(text)) // 2
        key = text.split(":", 1)[0]
        stack = [*stack[:depth], key]
        name = ".".join(stack)
        if any(name.startswith(f"{other}.") for other in COMPOUND):
            continue
        # The three probes share one comment.
        if is_described or is_probe(above) and is_probe(name):
            yield name
            above = name
        is_described = False


def is_probe(name):
    return name.rpartition(".")[2] in PROBES


def kustomizations():
    return sorted(path.parent for path in Path("deploy/kubernetes").rglob("kustomization.yaml") if is_root(path))


def is_root(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["kind"] == "Kustomization"


def built(kustomize, folder):
    done = subprocess.run([kustomize, "build", str(folder)], check=False, capture_output=True, text=True)
    if done.returncode != 0 or done.stderr.strip():
        raise Wrong(f"{folder}: kustomize: {done.stderr.strip()}")
    return documents(done.stdout)


def check_manifests(kustomize):
    for folder in kustomizations():
        things = built(kustomize, folder)
        for thing in things:
            validate(thing, str(folder))
        print(f"{folder}: {', '.join(thing['kind'] for thing in things)}")
    listed = {path for folder in kustomizations() for path in folder.glob("*.yaml")}
    for path in sorted(Path("deploy/kubernetes").rglob("*.yaml")):
        if path not in listed and path.parent != Path("deploy/kubernetes/sidecar"):
            raise Wrong(f"{path} belongs to no kustomization")
    for path in sorted(Path("deploy/kubernetes/monitoring").glob("*.yaml")):
        for thing in documents(path.read_text(encoding="utf-8")):
            if thing["kind"] not in FOREIGN | {"Kustomization"}:
                raise Wrong(f"{path}: {thing['kind']} is not expected here")
    check_sidecars(kustomize)


def check_sidecars(kustomize):
    """Only the image of the liveness container differs."""
    for name in ["nfs", "hostpath"]:
        folder = Path("deploy/kubernetes/examples", name)
        before = documents((folder / "driver.yaml").read_text(encoding="utf-8"))
        after = built(kustomize, folder)
        containers = after[0]["spec"]["template"]["spec"]["containers"]
        for container in containers:
            if container["name"] == "liveness-probe":
                if not container["image"].endswith("csi-gateway:v0.1.0"):
                    raise Wrong(f"{folder}: the image is {container['image']}")
                container["image"] = "sig-storage/livenessprobe:v2.17.0"
        if before != after:
            raise Wrong(f"{folder}: more than the image has changed")


def stop(children):
    for child in reversed(children):
        child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real API server with its etcd, on loopback."""

    def __init__(self, programs, folder):
        self.folder = Path(folder)
        self.programs = Path(programs)
        self.children = []
        self.url = f"https://127.0.0.1:{free_port()}"
        self.context = ssl.create_default_context()
        # Its certificate is of its own making, and it is on this machine.
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def spawn(self, name, *arguments):
        log = (self.folder / f"{name}.log").open("wb")
        self.children.append(subprocess.Popen([self.programs / name, *arguments], stdout=log, stderr=log))

    def start(self):
        client, peer = free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        self.spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--log-level=error",
        )
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, stderr=subprocess.DEVNULL)
        tokens = self.folder / "tokens"
        tokens.write_text(f'{TOKEN},admin,1,"system:masters"\n')
        self.spawn(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--service-account-issuer=https://issuer.example.com",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--cert-dir={self.folder}",
            "--service-cluster-ip-range=10.1.0.0/24",
            # As every cluster with CSI drivers has it.
            "--allow-privileged=true",
            "--profiling=false",
        )
        limit = time.monotonic() + 120
        while True:
            if any(child.poll() is not None for child in self.children) or time.monotonic() > limit:
                logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in self.folder.glob("*.log"))
                raise Wrong(f"no API server:\n{logs}")
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.2)

    def stop(self):
        stop(self.children)

    def ask(self, method, path, body=None):
        """Status, warnings, body."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/apply-patch+yaml"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                return answer.status, answer.headers.get_all("Warning") or [], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get_all("Warning") or [], error.read().decode()

    @functools.cache
    def resources(self, version):
        """Names of a version's resources by kind, and whether they live in namespaces."""
        prefix = "/api/" if "/" not in version else "/apis/"
        status, _, body = self.ask("GET", prefix + version)
        if status != 200:
            return {}
        return {one["kind"]: (one["name"], one["namespaced"]) for one in json.loads(body)["resources"] if "/" not in one["name"]}

    def apply(self, thing, is_dry=True):
        """Server-side apply with strict validation; a warning is an error."""
        version, kind, name = thing["apiVersion"], thing["kind"], thing["metadata"]["name"]
        known = self.resources(version)
        if kind not in known:
            raise Wrong(f"{version} {kind}: the API server does not know it")
        plural, is_namespaced = known[kind]
        prefix = "/api/" if "/" not in version else "/apis/"
        place = f"/namespaces/{thing['metadata']['namespace']}" if is_namespaced else ""
        query = "?fieldManager=ci&fieldValidation=Strict&force=true" + ("&dryRun=All" if is_dry else "")
        status, warnings, body = self.ask("PATCH", f"{prefix}{version}{place}/{plural}/{name}{query}", thing)
        if status not in (200, 201):
            raise Wrong(f"{kind} {name}: {status}: {json.loads(body).get('message', body)}")
        if warnings:
            raise Wrong(f"{kind} {name}: {'; '.join(warnings)}")


def what_is_there_before(server):
    """What a cluster has, or controllers make, that there are none of here."""
    for namespace in ["csi-gateway", "default", "kube-system"]:
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}, is_dry=False)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
        server.apply(account, is_dry=False)


def check_apply(kustomize, programs):
    applied = 0
    with tempfile.TemporaryDirectory(prefix="apply-", dir="/tmp") as folder:
        server = Server(programs, folder)
        try:
            server.start()
            what_is_there_before(server)
            with helm.Chart.load(CHART) as chart:
                sets = [(name, [thing for _, thing in rendered(chart, values)[0]]) for name, values in value_sets()]
            sets += [(str(folder), built(kustomize, folder)) for folder in kustomizations()]
            for name, things in sets:
                for thing in things:
                    if thing["kind"] in FOREIGN:
                        continue
                    try:
                        server.apply(thing)
                    except Wrong as error:
                        raise Wrong(f"{name}: {error}") from error
                    applied += 1
            check_that_it_judges(server)
            check_aggregators_are_restricted(server, sets)
            check_install(server)
        finally:
            server.stop()
    print(f"{applied} objects of {len(sets)} sets would be taken by a real API server")


def check_that_it_judges(server):
    """A misspelt field is refused: else all of this would say nothing."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x", "namespace": "default"}}
    try:
        server.apply({**account, "automountServiceAccountTokens": False})
    except Wrong:
        return
    raise Wrong("a misspelt field was taken")


def check_aggregators_are_restricted(server, sets):
    """A namespace that allows nothing takes aggregators; a DaemonSet of agents it warns of, so it does judge."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}}, is_dry=False)
    found = {"Deployment": 0, "DaemonSet": 0}
    for name, things in sets:
        for thing in things:
            # Drivers of the examples are privileged, and not ours.
            if thing["kind"] not in found or "app.kubernetes.io/part-of" not in thing["metadata"].get("labels", {}):
                continue
            found[thing["kind"]] += 1
            moved = {**thing, "metadata": {**thing["metadata"], "namespace": "restricted"}}
            try:
                server.apply(moved)
            except Wrong as error:
                if thing["kind"] == "Deployment":
                    raise Wrong(f"{name}: {error}") from error
            else:
                if thing["kind"] == "DaemonSet":
                    raise Wrong(f"{name}: a restricted namespace took agents")
    if not all(found.values()):
        raise Wrong(f"nothing to judge: {found}")


def check_install(server):
    """Helm itself would install it into this cluster: its version, its kinds."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    with helm.Config(kubeconfig_content=yaml.safe_dump(config), namespace="csi-gateway") as cluster:
        release = cluster.install(CHART, "csi-gateway", {}, namespace="csi-gateway", dry_run="server")
    if "kind: DaemonSet" not in release["manifest"]:
        raise Wrong(f"Helm would install {release}")


def containers(thing):
    spec = thing.get("spec", {})
    spec = spec.get("template", {}).get("spec", spec)
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def config_of(thing, things):
    """The configuration file that a workload mounts, from the ConfigMap that is made with it."""
    spec = thing.get("spec", {})
    volumes = spec.get("template", {}).get("spec", spec).get("volumes", [])
    names = {volume["configMap"]["name"] for volume in volumes if volume["name"] == "config"}
    found = [one["data"]["csi-gateway.hcl"] for one in things if one["kind"] == "ConfigMap" and one["metadata"]["name"] in names]
    if len(found) != len(names):
        raise Wrong(f"{thing['kind']} mounts {names}, which nothing makes")
    return found[0] if found else None


def check_arguments(kustomize, binary, *jobs):
    """Our own program takes every argument that is written somewhere."""
    found = []
    with helm.Chart.load(CHART) as chart:
        for name, values in value_sets():
            things = [thing for _, thing in rendered(chart, values)[0]]
            found += [(name, one["args"], config_of(thing, things)) for thing in things for one in containers(thing)]
    for folder in kustomizations():
        for thing in built(kustomize, folder):
            ours = [one for one in containers(thing) if "csi-gateway:" in one["image"]]
            found += [(str(folder), one["args"], None) for one in ours]
    compose = yaml.safe_load(Path("deploy/docker/compose.yaml").read_text(encoding="utf-8"))
    found += [(f"compose: {name}", service["command"], None) for name, service in compose["services"].items()]
    for path in jobs:
        job = json.loads(Path(path).read_text(encoding="utf-8"))["Job"]
        tasks = [task for group in job["TaskGroups"] for task in group["Tasks"] if task["Name"] == "csi-gateway"]
        found += [(path, task["Config"]["args"], None) for task in tasks]
        for task in tasks:
            check_secrets(path, task)
    for where, arguments, config in found:
        take(binary, where, arguments, config)
    print(f"{len(found)} command lines, all of which the program takes")


def check_secrets(where, task):
    """What a job's task reads as a secret is what its templates write, and etcd's certificate is looked at."""
    arguments = task["Config"]["args"]
    read = {match[1] for one in arguments if (match := re.search(r"=(?:/secrets|\$\{NOMAD_SECRETS_DIR\})/(.+)$", one))}
    written = {one["DestPath"].removeprefix("secrets/") for one in task.get("Templates") or []}
    if read != written:
        raise Wrong(f"{where}: secrets that are read and not written, or the other way round: {sorted(read ^ written)}")
    is_tls = any(one.startswith("--etcd-servers=") and "https://" in one for one in arguments)
    if is_tls != any(one.startswith("--etcd-cafile=") for one in arguments):
        raise Wrong(f"{where}: etcd's authorities are given where there is no TLS, or the other way round")


def take(binary, where, arguments, config):
    arguments = [re.sub(r"\$\{NOMAD_PORT_\w+\}", "4649", one) for one in arguments]
    arguments = [re.sub(r"\$\{NOMAD_\w+_DIR\}", "/x", one) for one in arguments]
    arguments = [re.sub(r"\$\{[\w.]+\}", "12345678", one) for one in arguments]
    command, *flags = arguments
    with tempfile.NamedTemporaryFile("w", suffix=".hcl") as file:
        file.write(config or "")
        file.flush()
        if command == "serve":
            flags = [re.sub("^--config=.*", f"--config={file.name}", flag) for flag in flags]
            words = ["config", "check", *flags]
        elif command in ("wait", "healthcheck"):
            # What counts here is whether it is understood; the last of two counts.
            words = [command, *flags, "--timeout=50ms"]
        elif command == "demo":
            words = [command, "--help"]
        elif command.startswith("-"):
            # In livenessprobe's place: its flags have their own tests, side by side with it.
            return
        else:
            raise Wrong(f"{where}: {command} is not expected")
        done = subprocess.run([binary, *words], check=False, capture_output=True, text=True, timeout=30)
    if done.returncode == 2 or (words[0] == "config" and done.returncode != 0):
        raise Wrong(f"{where}: {' '.join(words)}: {done.stderr.strip()}")


class Fleet:
    """An agent and an aggregator as the manifests have them, over a real etcd that asks for certificates."""

    def __init__(self, binary, etcd, folder):
        self.folder = Path(folder)
        # Whoever an aggregator runs as has to reach what is its own here.
        self.folder.chmod(0o755)
        self.binary = Path(shutil.copy(binary, self.folder / "csi-gateway"))
        self.etcd = etcd
        self.children = {}
        self.ports = {"etcd": free_port(), "DaemonSet": free_port(), "Deployment": free_port()}

    def spawn(self, name, *command, user=None):
        log = (self.folder / f"{name}.log").open("wb")
        # Nothing of who runs this may lead to a setting.
        environment = {"PATH": os.environ["PATH"], "NODE_NAME": "worker-node-a"}
        ids = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        self.children[name] = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, env=environment, cwd="/", **ids)

    def certificates(self):
        """An authority, and one certificate by it for etcd and those that ask it; by the names of a Secret's keys."""
        made = self.folder / "certificates"
        made.mkdir()
        (made / "openssl.conf").write_text("[req]\ndistinguished_name = name\n[name]\n")
        request = ["openssl", "req", "-x509", "-config", "openssl.conf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        authority = ["-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", "ca.key", "-out", "ca.crt"]
        own = ["-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=member", "-keyout", "tls.key", "-out", "tls.crt"]
        for extension in ("basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1", "extendedKeyUsage=serverAuth,clientAuth"):
            own += ["-addext", extension]
        for rest in (authority, own):
            subprocess.run([*request, *rest], check=True, cwd=made, capture_output=True)
        return made

    def start_etcd(self, made):
        here = f"https://127.0.0.1:{self.ports['etcd']}"
        self.spawn(
            "etcd",
            self.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={here}",
            f"--advertise-client-urls={here}",
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            f"--cert-file={made / 'tls.crt'}",
            f"--key-file={made / 'tls.key'}",
            "--client-cert-auth",
            f"--trusted-ca-file={made / 'ca.crt'}",
        )

    def start(self, workload, made):
        """A workload's container on this machine: each mount is a folder here, owned as the kubelet would have it."""
        kind, spec = workload["kind"], workload["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        user = context.get("runAsUser") if os.geteuid() == 0 else None
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = []
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            place = self.folder / kind / mount["name"]
            place.mkdir(parents=True)
            if secret := volume.get("secret"):
                for key in ("ca.crt", "tls.crt", "tls.key"):
                    file = Path(shutil.copy(made / key, place / key))
                    if os.geteuid() == 0:
                        os.chown(file, 0, spec.get("securityContext", {}).get("fsGroup", 0))
                    file.chmod(secret["defaultMode"])
            mounts.append((mount["mountPath"], place))
        # Below the kubelet's directory there are two mounts, and one flag names what is above them.
        mounts += [(str(Path(path).parent), place.parent) for path, place in mounts if place.name == "plugins"]
        arguments = []
        for argument in container["args"]:
            argument = argument.replace("https://etcd.example.com:2379", f"https://127.0.0.1:{self.ports['etcd']}")
            argument = re.sub(r"^(--http-endpoint=):\d+$", rf"\g<1>127.0.0.1:{self.ports[kind]}", argument)
            for path, place in mounts:
                argument = re.sub(rf"(=|unix://){path}(?=/|$)", rf"\g<1>{place}", argument)
            if re.search(r"(=|unix://)/(etc|var|run)/", argument):
                raise Wrong(f"{kind}: {argument}: nothing is mounted there")
            arguments.append(argument)
        self.spawn(kind, self.binary, *arguments, user=user)

    def get(self, kind, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[kind]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def until(self, what, look, limit_seconds=60):
        end = time.monotonic() + limit_seconds
        while not look():
            dead = [name for name, child in self.children.items() if child.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in self.folder.glob("*.log"))
                raise Wrong(f"{what}: {f'{dead} ended' if dead else f'not within {limit_seconds} s'}\n{logs}")
            time.sleep(0.1)

    def has(self, kind, sample):
        return f"\n{sample}\n" in self.get(kind, "/metrics")[1]


def check_fleet(kustomize, binary, etcd):
    """The manifests of a fleet work: Secrets can be read, members find etcd, aggregators show what agents know, alerts have their metrics."""
    workloads = {thing["kind"]: thing for thing in built(kustomize, "deploy/kubernetes/overlays/fleet") if thing["kind"] in ("DaemonSet", "Deployment")}
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp") as folder:
        fleet = Fleet(binary, etcd, folder)
        try:
            made = fleet.certificates()
            fleet.start_etcd(made)
            fleet.start(workloads["DaemonSet"], made)
            fleet.start(workloads["Deployment"], made)
            driver = Path(folder, "DaemonSet", "plugins", "scripted", "csi.sock")
            driver.parent.mkdir()
            fleet.spawn("driver", binary, "demo", f"--driver-only={driver}")
            fleet.until("the aggregator shows the node", lambda: '"NodesHealthy":1' in fleet.get("Deployment", "/v1/plugins?type=csi")[1])
            fleet.until("both are ready", lambda: all(fleet.get(kind, "/readyz")[0] == 200 for kind in workloads))
            fleet.until("both are in step", lambda: all(fleet.has(kind, "csi_gateway_fleet_in_step 1") for kind in workloads))
            fleet.until("all is told", lambda: fleet.has("DaemonSet", "csi_gateway_fleet_waiting 0"))
            for sample in ('csi_gateway_fleet_hosts{state="here"} 1', 'csi_gateway_fleet_hosts{state="lost"} 0', 'csi_gateway_host_alive{host_id="worker-node-a"} 1'):
                if not fleet.has("Deployment", sample):
                    raise Wrong(f"the aggregator does not serve {sample}")
            stop([fleet.children.pop("etcd")])
            for kind in workloads:
                fleet.until(f"{kind}: out of step", lambda kind=kind: fleet.has(kind, "csi_gateway_fleet_in_step 0"))
                fleet.until(f"{kind}: and why", lambda kind=kind: fleet.has(kind, 'csi_gateway_fleet_trouble{kind="away"} 1'))
                # What the kubelet asks: neither restarts them, nor leaves them without readers.
                for path in ("/livez", "/readyz"):
                    if fleet.get(kind, path)[0] != 200:
                        raise Wrong(f"{kind}: {path} is about etcd: {fleet.get(kind, path)}")
        finally:
            stop(list(fleet.children.values()))
    print("an agent and an aggregator of the manifests, over an etcd that asks for certificates")


def main():
    os.chdir(Path(__file__).resolve().parent.parent)
    checks = {"chart": check_chart, "manifests": check_manifests, "apply": check_apply, "arguments": check_arguments, "fleet": check_fleet}
    try:
        checks[sys.argv[1]](*sys.argv[2:])
    except Wrong as why:
        print(f"failed: {why}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
