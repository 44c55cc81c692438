"""Run the application on a port until a signal ends it."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ames.errors import AmesError
from ames.web.app import Limits, make_app
from ames.web.engine import Engine
from ames.web.guard import access_to, is_address
from ames.web.refusals import Refusal

VARIABLE = "AMES_TOKEN"  # of the environment
_SHORTEST = 16  # characters of a token that a user gives
_GRACE = 5  # seconds in which requests may finish after a signal
_CONNECTIONS = 800  # at a time, of the 1,024 files that a process may usually open


@dataclass(frozen=True)
class Place:
    """Where a server listens. host: as the user named it; port 0: any free one."""

    host: str = "127.0.0.1"
    port: int = 8008


def serve(
    folder: Path | str,
    place: Place | None = None,
    *,
    limits: Limits | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] = print,
) -> None:
    """Serve a collection until SIGTERM or SIGINT (which raises KeyboardInterrupt). tell: is called with the
    address. AmesError where the collection cannot be opened, or the port is taken.
    """
    place = place or Place()
    with listening(place) as listener:
        address, port = listener.getsockname()[:2]
        token = token_for(address)
        access = access_to(place.host, address, port, token)
        app = make_app(_warmed(Engine(folder, device=device)), access, limits)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE,
            ws="none",
            http="h11",
            loop="asyncio",
        )
        server = _Server(config, lambda: tell(address_line(place.host, port, token)))
        with _ended_by_sigterm():
            server.run(sockets=[listener])


def _warmed(engine: Engine) -> Engine:
    """What cannot be loaded is one line of the command, not of the first request."""
    try:
        engine.warm()
    except Refusal as refusal:
        raise AmesError(refusal.text) from refusal
    return engine


def token_for(address: str) -> str | None:
    """Return the token that requests need: AMES_TOKEN, else a new one for addresses other machines reach."""
    given = os.environ.get(VARIABLE)
    if given:
        if len(given) < _SHORTEST or not (given.isascii() and given.isprintable()) or " " in given:
            raise AmesError(
                f"{VARIABLE}: give at least {_SHORTEST} printable ASCII characters, without spaces"
            )
        return given
    return None if ipaddress.ip_address(address).is_loopback else secrets.token_urlsafe(24)


def address_line(host: str, port: int, token: str | None) -> str:
    """Return the address to open. A token that the user gave is known already, and is not printed."""
    if is_address(host) and ipaddress.ip_address(host).is_unspecified:  # other machines need a name
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    new = token is not None and not os.environ.get(VARIABLE)
    return f"http://{shown}:{port}/" + (f"?token={token}" if new else "")


@contextmanager
def listening(place: Place) -> Iterator[socket.socket]:
    """Listen during the block. AmesError where that is not possible."""
    if not 0 <= place.port <= 65535:
        raise AmesError(f"port {place.port}: give a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise AmesError(f"host {place.host}: this machine has no such address ({error})") from error
    with listener:
        if os.name == "posix":  # a port that was in use a moment ago is free
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
            listener.listen(1024)
        except OSError as error:
            raise AmesError(_why(place, error)) from error
        yield listener


def _why(place: Place, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {place.port} of {place.host} is in use: give another --port, or 0 for any free one"
    return f"{place.host}, port {place.port}: cannot listen ({error.strerror})"


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """uvicorn sends a signal that ended it again, to what handled it before: nothing more is to be done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
