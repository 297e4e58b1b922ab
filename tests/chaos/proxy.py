"""A TCP proxy between a worker and a service: what passes can be cut off or held up."""

import socket
import threading
from contextlib import suppress


class Proxy:
    """Listens on a loopback port and passes everything on to `target`, until it is told not to."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._cut = False
        self._pairs: dict[socket.socket, socket.socket] = {}  # the worker's end: the service's
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection, and every new one at once."""
        self._cut = True
        self.drop()

    def drop(self) -> None:
        """Ends every connection that there is; new ones are let through."""
        for ends in list(self._pairs.items()):
            _close(*ends)

    def hold(self) -> None:
        """Nothing passes, and nobody is told."""
        self._flowing.clear()

    def heal(self) -> None:
        """Lets through what was held and whoever comes."""
        self._cut = False
        self._flowing.set()

    def close(self) -> None:
        """Ends all of it."""
        self.cut()
        self._flowing.set()
        _close(self._listener)

    def dials_from(self, port: int) -> bool:
        """Whether a connection of the service, seen there as from `port`, is one of ours."""
        for upstream in list(self._pairs.values()):
            with suppress(OSError):
                if upstream.getsockname()[1] == port:
                    return True
        return False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                _close(client)
                continue
            try:
                upstream = socket.create_connection(self._target, 5)
            except OSError:
                _close(client)
                continue
            upstream.settimeout(None)
            self._pairs[client] = upstream
            for ends in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(*ends, client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        _close(source, sink)
        self._pairs.pop(client, None)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
