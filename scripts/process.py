"""A process on this machine that is measured: started, asked over HTTP on the loopback, read in /proc, ended."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path


class Failed(Exception):
    """What was expected and did not come."""


def wait_for(what, look, limit_seconds=10.0, pause_seconds=0.02):
    """Return the first truthy value of look()."""
    end = time.monotonic() + limit_seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit_seconds:g} s")
        time.sleep(pause_seconds)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tools(*names):
    """Build bench targets that are tools; return their paths by name."""
    command = ["cargo", "build", "--release", "--message-format=json-render-diagnostics"]
    command += [f"--bench={name}" for name in names]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed")
    messages = (json.loads(line) for line in done.stdout.splitlines())
    return {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}


class Process:
    """One running program and what the kernel says of it."""

    def __init__(self, command, log, **options):
        self.log = Path(log)
        with self.log.open("ab") as sink:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                **options,
            )
        self.pid = self.child.pid

    def check_alive(self):
        code = self.child.poll()
        if code is not None:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            raise Failed(f"`{self.child.args[0]}` ended with exit code {code}:\n{text}")

    def kill(self):
        """End it as a crash would."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        """End it in good order, by force after 10 s."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.child.returncode

    def _proc(self, name):
        return Path("/proc", str(self.pid), name)

    def memory(self):
        """Resident bytes: all of it, and the part that no file backs."""
        lines = dict(line.split(":", 1) for line in self._proc("status").read_text().splitlines())
        return tuple(int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))

    def cpu_seconds(self):
        """Time on a core, of all threads that still run, to the nanosecond."""
        tasks = self._proc("task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def written_bytes(self):
        """What it caused to be written to disks."""
        lines = dict(line.split(": ", 1) for line in self._proc("io").read_text().splitlines())
        return int(lines["write_bytes"])

    def descriptors(self):
        return len(list(self._proc("fd").iterdir()))

    def threads(self):
        return len(list(self._proc("task").iterdir()))


class Server(Process):
    """A process that serves HTTP."""

    address = None

    def get(self, path, limit_seconds=30.0, headers=None):
        """Return (status, headers, body); the body as it came, compressed if that was asked for."""
        request = urllib.request.Request(f"{self.address}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=limit_seconds) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def json(self, path):
        status, _, body = self.get(path)
        return json.loads(body) if status == 200 else None

    def wait_until_it_answers(self, path="/livez"):
        def answers():
            self.check_alive()
            try:
                return self.get(path)[0] < 500
            except OSError:
                return False

        wait_for(f"an answer from `{self.child.args[0]}`", answers, 30)


@contextmanager
def gateway(binary, folder, arguments, name="gateway"):
    """A gateway on a port of its own; serve or demo, by its arguments."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CSI_")}
    environment["TMPDIR"] = str(folder)
    command = [binary, *arguments, f"--http-endpoint=127.0.0.1:{port}"]
    server = Server(command, Path(folder, f"{name}.log"), env=environment)
    server.address = f"http://127.0.0.1:{port}"
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@contextmanager
def driver(folder, name="csi"):
    """The real hostpath driver, of the folder that CSI_GATEWAY_TEST_BIN names; yields (socket, start)."""
    binary = Path(os.environ["CSI_GATEWAY_TEST_BIN"], "hostpathplugin")
    endpoint = Path(folder, f"{name}.sock")
    running = []

    def start():
        command = [
            binary,
            "--drivername=hostpath.csi.k8s.io",
            f"--endpoint=unix://{endpoint}",
            "--nodeid=node-12345678",
            f"--statedir={Path(folder, 'driver-state')}",
        ]
        running.append(Process(command, Path(folder, f"{name}.log")))
        return running[-1]

    try:
        yield endpoint, start
    finally:
        for process in running:
            process.kill()


def plugin(server, plugin_id):
    return server.json(f"/v1/plugin/csi/{plugin_id}")


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


def table(head, rows):
    """Print a Markdown table; the first column is text, the others are numbers."""
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(flush=True)


class Budgets:
    """What was promised, and where it was not kept."""

    def __init__(self):
        self.broken = []

    def at_most(self, what, value, limit, unit=""):
        if not value <= limit:
            self.broken.append(f"{what}: {value:.4g}{unit}, at most {limit:g}{unit}")

    def at_least(self, what, value, limit, unit=""):
        if not value >= limit:
            self.broken.append(f"{what}: {value:.4g}{unit}, at least {limit:g}{unit}")

    def report(self):
        for text in self.broken:
            print(f"over budget: {text}")
        return 1 if self.broken else 0
