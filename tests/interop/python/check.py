"""python-nomad against a gateway: its requester, its search, its event stream, its exceptions.

Usage: check.py PATH-OF-CSI-GATEWAY. Serves a made fleet of which one plugin changes its health twice a second, and prints
each claim that held. The first that does not ends it.
"""

import queue
import subprocess
import sys
import time

import nomad
from nomad.api.base import Requester
from nomad.api.exceptions import BadRequestNomadException, BaseNomadException, URLNotFoundNomadException

FLAPPING = "demo-0000"


class Plugins(Requester):
    """What users of python-nomad write, which has no class for plugins."""

    ENDPOINT = "plugins"

    def get(self, **params):
        return self.request(method="get", params={"type": "csi", **params})


class Plugin(Requester):
    ENDPOINT = "plugin/csi"

    def get(self, plugin, **params):
        return self.request(plugin, method="get", params=params)


def held(text):
    print("ok:", text, flush=True)


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error.nomad_resp.text
    raise AssertionError(f"no {kind.__name__}")


def check(address):
    host, port = address.rsplit(":", 1)
    client = nomad.Nomad(host=host, port=int(port), timeout=5)
    known = {"address": f"http://{address}", "timeout": 5}
    plugins, plugin = Plugins(**known), Plugin(**known)

    end = time.monotonic() + 30
    while len(plugins.get().json()) < 3:
        assert time.monotonic() < end, "the fleet is not served"
        time.sleep(0.02)
    answer = plugins.get(prefix="demo-000")
    assert [stub["ID"] for stub in answer.json()] == ["demo-0000", "demo-0001", "demo-0002"], answer.text
    assert answer.headers["Content-Encoding"] == "gzip", answer.headers
    held("list, compressed")
    read = plugin.get("demo-0001").json()
    assert read["NodesHealthy"] == 3 and len(read["Nodes"]) == 3, read
    held("read")

    assert refused(URLNotFoundNomadException, lambda: plugin.get("nobody")) == "plugin not found"
    assert refused(BadRequestNomadException, lambda: plugins.get(wait="5")) == "Invalid wait time"
    assert refused(BaseNomadException, lambda: plugins.get(region="mars")) == "No path to region"
    held("exceptions with Nomad's texts")

    index = 0
    for _ in range(4):
        answer = plugin.get(FLAPPING, index=index, wait="4s")
        assert int(answer.headers["X-Nomad-Index"]) > index, (index, answer.headers)
        index = int(answer.headers["X-Nomad-Index"])
    held("blocking reads")

    found = client.search.search("demo-", "plugins")
    assert found["Matches"]["plugins"] == ["demo-0000", "demo-0001", "demo-0002"], found
    found = client.search.fuzzy_search("0002", "plugins")
    assert found["Matches"]["plugins"] == [{"ID": "demo-0002"}], found
    assert client.status.leader.get_leader() and client.regions.get_regions() == ["global"]
    assert client.agent.get_members()["ServerRegion"] == "global"
    held("search, leader, regions, members")

    stream, stop, events = client.event.stream.get_stream(index=0, topic=f"CSIPlugin:{FLAPPING}", timeout=5)
    stream.daemon = True
    stream.start()
    last = 0
    for _ in range(3):
        try:
            line = events.get(timeout=20)
        except queue.Empty:
            raise AssertionError("no event") from None
        assert line["Index"] > last, (last, line["Index"])
        assert all(event["Key"] == FLAPPING for event in line["Events"]), line
        last = line["Index"]
    stop.set()
    held("events")


def main():
    program = sys.argv[1]
    command = [program, "demo", "--hosts=3", "--plugins=3", "--flap=500ms", "--http-endpoint=127.0.0.1:0"]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in gateway.stdout:
            if line.startswith("listening on http://"):
                check(line.strip().removeprefix("listening on http://"))
                return
        raise AssertionError("the gateway ended before it served")
    finally:
        gateway.kill()
        gateway.wait()


if __name__ == "__main__":
    main()
