"""The process that listens: address, names, token, connections with an end, and how it stops."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.machine.stop import StopRequest
from icre_jax.serving.application import make_application
from icre_jax.serving.guard import Guard
from icre_jax.serving.limits import Limits
from icre_jax.serving.searcher import Searcher

LOCAL = "127.0.0.1"
_LOCAL_NAMES = (LOCAL, "localhost", "[::1]")
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 1024
_LARGEST_TOKEN_FILE = 2**16  # bytes
_GRACE = 3  # seconds that requests in work get when the server is stopped
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Access:
    """From where a server may be asked, and by whom.

    Attributes:
      address: that it listens at.
      host: the first name to call it by, as it stands in a browser: an address of IPv6 in brackets.
      names: that it goes by, as a Host header says them.
      token: that has to be known; None where it listens to this machine only and nobody asked for one.
    """

    address: str
    host: str
    names: tuple[str, ...]
    token: str | None


def check_access(address: str, names: Sequence[str], token_file: Path | None) -> Access:
    """What the flags say, if it is safe.

    Args:
      address: of --listen.
      names: of --host_name.
      token_file: of --token_file.

    Raises:
      InputError: no address, no token for others than this machine, no name to go by, or a short token.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise InputError(f"--listen is {address!r}; give an IP address of this machine, such as {LOCAL}.") from error
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise InputError(f"--host_name is {name!r}; give a name or address without a port, as a browser shows it.")
    token = None if token_file is None else _read_token(token_file)
    if not ip.is_loopback and token is None:
        raise InputError(
            f"--listen {address} lets others ask whom a gallery of people shows. Say --token_file FILE too, with a "
            f'secret that they must know: python -c "import secrets; print(secrets.token_urlsafe())" > FILE'
        )
    if ip.is_unspecified and not names:
        raise InputError(f"--listen {address} is every address of this machine. Say by which names with --host_name.")
    own = f"[{ip.compressed}]" if ip.version == 6 else ip.compressed
    host = (names or [own])[0]
    return Access(address, host, (*_LOCAL_NAMES, own.lower(), *(name.lower() for name in names)), token)


def bind(access: Access, port: int) -> socket.socket:
    """A socket at the address; nothing is accepted yet.

    Raises:
      InputError: the port is taken, or the address is not of this machine.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"--port is {port}; 0 (any that is free) to {2**16 - 1} are allowed.")
    opened = socket.socket(socket.AF_INET6 if ":" in access.address else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((access.address, port))
    except OSError as error:
        opened.close()
        raise InputError(
            f"Cannot listen at {access.address}, port {port}: {error.strerror}. Choose another --port, or 0 for any."
        ) from error
    return opened


def serve(searcher: Searcher, access: Access, opened: socket.socket, limits: Limits) -> None:
    """Answer until SIGINT or SIGTERM; requests in work get three seconds then.

    Args:
      searcher: who answers.
      access: who may ask.
      opened: of `bind`.
      limits: of requests.
    """
    server = make_server(searcher, access, limits)
    with StopRequest(), opened:  # uvicorn hands the signal on, which would end the process
        server.run(sockets=[opened])


def make_server(searcher: Searcher, access: Access, limits: Limits) -> uvicorn.Server:
    """The server, ready to run; arguments as of `serve`."""
    app = Guard(
        make_application(searcher, limits),
        names=access.names,
        token=access.token,
        discarded_bytes=limits.body_bytes,
    )
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_connection(limits),
            ws="none",
            loop="asyncio",
            lifespan="on",
            # No line for a request; and what a client sends wrongly is no concern of the log.
            access_log=False,
            log_config=None,
            log_level="error",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )


def _connection(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol with an end: by itself it waits for ever for the rest of a head, or for a reader."""

    class Connection(H11Protocol):
        _ends: tuple[asyncio.TimerHandle, ...] = ()

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
                return
            self._ends = (
                self.loop.call_later(limits.head_seconds, self._end_without_request),
                self.loop.call_later(limits.connection_seconds, transport.abort),
            )

        def connection_lost(self, exc: Exception | None) -> None:
            for end in self._ends:
                end.cancel()
            super().connection_lost(exc)

        def _end_without_request(self) -> None:
            if self.cycle is None:
                self.transport.abort()

    return Connection


def _read_token(file: Path) -> str:
    token = command.read_input(file, "--token_file", most_bytes=_LARGEST_TOKEN_FILE).strip()
    if not re.fullmatch(rb"[!-~]{%d,%d}" % (_SHORTEST_TOKEN, _LONGEST_TOKEN), token):
        raise InputError(
            f"--token_file {file} must hold one word of {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} ASCII characters."
        )
    return token.decode("ascii")
