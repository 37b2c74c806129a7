"""What stands before every request: names it may be addressed by, where it may come from, and headers of answers."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and run: its own files, and pictures inside of it."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests that a foreign web page sends through a visitor's browser.

    A name that an attacker's name server points at this machine (DNS rebinding) stands in the Host header, so names
    other than this machine's are refused; an address written as numbers cannot be rebound. A form or script of another
    site (cross-site request forgery) shows in the Origin and Sec-Fetch-Site headers, which browsers set and pages
    cannot change.

    Args:
        app: application to guard.
        names: Host names, beside `localhost` and IP addresses, under which it may be asked.
        policy: Content-Security-Policy of all answers.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = (), policy: str = POLICY) -> None:
        self._app = app
        self._headers = {"content-security-policy": policy, **_HEADERS}
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refusal = self._refusal(Headers(scope=scope), str(scope["scheme"]))
        if refusal is None:
            await self._app(scope, receive, with_headers)
            return
        body = json.dumps({"detail": refusal}).encode()
        # closed, because what the request still sends is not read
        headers = [
            (b"content-type", b"application/json"),
            (b"connection", b"close"),
            (b"content-length", str(len(body)).encode()),
        ]
        await with_headers({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, headers: Headers, scheme: str) -> str | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._known(hosts[0]):
            return "this address is not one of this server's; open it by its IP address, localhost or the --host name."
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            return "requests from other sites are refused."
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scheme}://{hosts[0]}".lower():
            return "requests from other sites are refused."
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def own_names(host: str) -> set[str]:
    """The names under which a server may be asked that listens on `host`."""
    return {host} if host in ("127.0.0.1", "::1", "localhost") else {host, socket.gethostname(), socket.getfqdn()}
