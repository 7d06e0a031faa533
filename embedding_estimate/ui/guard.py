"""Who may ask the standalone app: its own page, and programs; no other page that is open in the same browser.

A page of another site reaches an app on this machine by its address or, by DNS rebinding, by a name of the site's own
that leads here. Browsers say in each request by which name it was addressed and which page has made it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

READING = ("GET", "HEAD")
SENDING = {f"/gradio_api/{path}" for path in ("queue/join", "run/predict", "reset", "cancel")}  # what the page sends to


def served_names(address: str) -> frozenset[str]:
    """The names that an app which listens on this address is called by; numeric addresses are always taken."""
    names = {"localhost", address.lower()}
    if not _loopback(address):
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names)


class Guard:
    """ASGI middleware that refuses what other pages ask for, and all requests that the app's own page does not need.

    The names of `served_names` and numeric addresses are trusted: nobody can make these lead elsewhere.
    """

    def __init__(self, app: Application, names: Collection[str]):
        self._app = app
        self._names = names

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else ""
        if not refusal:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": refusal.encode()})

    def _refusal(self, scope: Message) -> str:
        """Why a request is refused, as one line; empty where it is not."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").lower()
        if not self._trusted(_name(host)):
            return (
                f"{host!r} is no name of this app: open it by its address, or listen with --host-address on that name"
            )
        if _from_another_page(headers, host):
            return "another page has asked for this: open the app by itself"
        method, path = scope.get("method", "GET"), scope["path"].rstrip("/")
        if method not in READING and path not in SENDING:
            return f"{method} {path}: is nothing that the app takes"
        return ""

    def _trusted(self, name: str) -> bool:
        return name in self._names or _address(name) is not None


def _from_another_page(headers: Mapping[str, str], host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None and _place(origin) != host:
        return True
    site = headers.get("sec-fetch-site", "same-origin")
    followed_a_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return site not in ("same-origin", "none") and not followed_a_link


def _name(host: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _loopback(address: str) -> bool:
    numeric = _address(address)
    return address.lower() == "localhost" if numeric is None else numeric.is_loopback
