"""Who may ask: hosts that are served, pages that may post, and a token for other machines."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ames.web.refusals import Refusal, refusal_answer

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_OPEN = ("/health",)  # what a monitor may ask without the token


@dataclass(frozen=True)
class Access:
    """names: hosts that are served, in lower case. addresses: whether any IP address is, for a server that
    listens on all of a machine's. token: None: whoever reaches the server may ask. cookie: its name."""

    names: frozenset[str]
    addresses: bool = False
    token: str | None = field(default=None, repr=False)
    cookie: str = "ames_token"

    def serves(self, host: str) -> bool:
        """Return whether a Host header names this server: another name may be a page's trick (rebinding)."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        return name in self.names or (self.addresses and is_address(name))

    def admits(self, headers: Headers) -> bool:
        """Return whether the token came with a request, as a cookie or as a bearer."""
        if self.token is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and same(bearer.strip(), self.token):
            return True
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(name == self.cookie and same(value, self.cookie_value()) for name, _, value in pairs)

    def cookie_value(self) -> str:
        """Return what the cookie holds: not the token itself."""
        return hashlib.sha256(f"ames {self.token}".encode()).hexdigest()


def same(given: str, wanted: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def access_to(host: str, address: str, port: int, token: str | None) -> Access:
    """Return who may ask a server. host: as the user gave it; address: what it listens on."""
    found = ipaddress.ip_address(address)
    names = {host.lower(), address, *(("localhost", "127.0.0.1", "::1") if _is_here(found) else ())}
    if found.is_unspecified:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return Access(frozenset(names), found.is_unspecified, token, f"ames_token_{port}")


def _is_here(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_loopback or address.is_unspecified


class Guard:
    """Asks ``Access`` before the application sees a request, and adds ``HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answer = self._answer(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self.app if answer is None else answer)(scope, receive, guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """What the application is not asked for."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.serves(hosts[0]):
            return refusal_answer(Refusal(421, "this server does not serve that host name"))
        if _is_foreign(scope, headers, hosts[0]):
            return refusal_answer(Refusal(403, "requests of other pages are refused"))
        if self.access.token is None or scope["path"] in _OPEN:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and len(given) == 1 and same(given[0], self.access.token):
            return self._welcome()
        if not self.access.admits(headers):
            return refusal_answer(Refusal(401, "open the address that ames serve printed, with its token"))
        return None

    def _welcome(self) -> Response:
        """The token leaves the address bar; Lax, for a link that was opened from elsewhere must work."""
        answer = RedirectResponse("./", 303)  # relative: a proxy may serve it below a folder
        answer.set_cookie(self.access.cookie, self.access.cookie_value(), httponly=True, samesite="lax")
        return answer


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether another site's page asks. Programs that are no browsers send neither header."""
    is_page = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none") and not is_page
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != host.lower() and not is_page
