"""Connections to hosts that others name: looked at before they are dialled, and bounded in time."""

import ipaddress
import socket
import ssl
import time
from typing import Any

import httpcore

from pgclip_workers.pictures.refused import Refused

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not the internet's, whatever this Python knows of them: protocol assignments, where a cloud's
# metadata are, another cloud's own address on every host, IPv6's former private range, NAT64 within
# a network, and IPv4 as IPv6 once had it.
_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "168.63.129.16/32", "fec0::/10", "64:ff9b:1::/48", "::/96")
]


class Guarded(httpcore.NetworkBackend):
    """Resolves a name once, looks at every address, and dials one of those.

    Past `deadline`, of time.monotonic(), nothing is dialled, read or written any more: a limit on
    each read alone would let a site send a byte now and then for ever.
    """

    def __init__(self, private: bool, deadline: float) -> None:
        self._backend = httpcore.SyncBackend()
        self._private = private
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """As its base has it. Raises Refused if an address of the host is not public."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} can't be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._private and not is_public(address):
                raise Refused(
                    "forbidden_url",
                    f"{host} leads to {address}, which is not a public address; "
                    "PGCLIP_PRIVATE_URLS allows that",
                )
        for address in addresses[:-1]:
            try:
                return self._dial(address, port, timeout, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._dial(addresses[-1], port, timeout, socket_options)

    def sleep(self, seconds: float) -> None:
        """As its base has it."""
        time.sleep(seconds)

    def _dial(
        self, address: str, port: int, timeout: float | None, options: Any
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(address, port, left, None, options)
        return _Bounded(stream, self._deadline)


class _Bounded(httpcore.NetworkStream):
    """A stream until a deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(self._deadline, timeout, httpcore.ReadTimeout)
        return self._stream.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, timeout, httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return _Bounded(stream, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(
    deadline: float, timeout: float | None, expired: type[httpcore.TimeoutException]
) -> float:
    """Seconds that an operation may take. Raises `expired` if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise expired("it takes too long")
    return left if timeout is None else min(left, timeout)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, also one that is wrapped in IPv6."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    if any(ip.version == network.version and ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
