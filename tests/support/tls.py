"""TLS before the services: certificates made with openssl, and a proxy that ends TLS.

The embedded servers are built without TLS. To clients the proxy is a server with it: a Redis whose
port speaks TLS, or a Postgres that answers an SSLRequest with S.
"""

import contextlib
import selectors
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# What a Postgres client begins with: that it wants TLS, or that a statement be cancelled.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True)
class Certificates:
    """Files: an authority, a server's certificate for 127.0.0.1 by it with key, and a stranger."""

    authority: Path
    server: Path
    key: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """Makes them, valid for two days."""
    for name in ("authority", "stranger"):
        _openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    _openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-CA", "authority.pem", "-CAkey", "authority.key",
        "-keyout", "server.key", "-out", "server.pem",
    )  # fmt: skip
    names = ("authority.pem", "server.pem", "server.key", "stranger.pem")
    return Certificates(*(folder / name for name in names))


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@contextlib.contextmanager
def tls_before(url: str, certificates: Certificates) -> Iterator[int]:
    """A port that speaks TLS, and to the server of this URL in the clear."""
    parts = urlsplit(url)
    target = (parts.hostname or "", parts.port or 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key)
    postgres = parts.scheme.startswith("postgres")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed: the end
                return
            threading.Thread(target=carry, args=(client,), daemon=True).start()

    def carry(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:  # an SSLError is one
            if postgres:
                if client.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
                    return
                client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(target) as server,
            ):
                pass_on(inside, server)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        # close() alone leaves an accept() that waits.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def pass_on(inside: ssl.SSLSocket, server: socket.socket) -> None:
    """Both ways, until one side ends. In one thread: an SSLSocket must not be used by two."""
    with selectors.DefaultSelector() as selector:
        selector.register(inside, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, inside)
        while True:
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data = source.recv(2**16)
                if not data:
                    return
                while source is inside and inside.pending():
                    data += inside.recv(2**16)
                key.data.sendall(data)
