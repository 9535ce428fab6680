"""Listens at many sockets, accepts, and never answers: `hung.py DIRECTORY COUNT` makes DIRECTORY/N/csi.sock."""

import selectors
import socket
import sys
from pathlib import Path


def main():
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    selector = selectors.DefaultSelector()
    for number in range(count):
        path = directory / str(number) / "csi.sock"
        path.parent.mkdir(parents=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        selector.register(listener, selectors.EVENT_READ, True)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data:
                selector.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
            elif not key.fileobj.recv(4096):
                selector.unregister(key.fileobj)
                key.fileobj.close()


if __name__ == "__main__":
    main()
