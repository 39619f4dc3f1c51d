"""What every request passes before anything else looks at it, and what every answer carries.

Host          must be a name of this server: a foreign page that points its own name here is refused (DNS rebinding)
Origin        must be this page, as must Sec-Fetch-Site: a foreign page cannot ask in a user's name
Authorization must hold the token, where there is one, for all but the page itself, into which it is typed
answers       say what a browser may do with them, and that it keeps nothing; one request for each connection
errors        become a sentence without details; the log gets the kind of error and a line of code, never its text,
              which may hold names of files
"""

import asyncio
import contextlib
import hmac
import logging
import re
import traceback
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

DATA = "/api/"  # what needs the token, and no foreign page may ask for
_DISCARDED_SECONDS = 2
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    # A connection is one request: its end can then be bounded in time, whatever it waits for.
    "Connection": "close",
}


class Guard:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, *, names: Collection[str], token: str | None, discarded_bytes: int):
        """Prepare.

        Args:
          app: what is guarded.
          names: of this server, as a Host header says them, lower case and without a port.
          token: None where everybody who reaches the server may ask.
          discarded_bytes: of the body of a refused request that are read, so that its sender gets to read the answer.
        """
        self._app = app
        self._names = frozenset(names)
        self._token = None if token is None else token.encode()
        self._discarded_bytes = discarded_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        begun = False

        async def send_on(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            refusal = self._refuse(scope["path"], Headers(scope=scope))
            if refusal is None:
                await self._app(scope, receive, send_on)
            else:
                await discard(receive, self._discarded_bytes)
                await refusal(scope, receive, send_on)
        except ClientDisconnect:
            pass
        except Exception as error:  # whatever it is, the server goes on and says nothing of a user's
            _log.error("Error in a request: %s", _describe(error))  # no traceback: it quotes texts
            if not begun:
                await refuse(500, "Something went wrong here; the log has the kind of error.")(scope, receive, send_on)

    def _refuse(self, path: str, headers: Headers) -> JSONResponse | None:
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if found is None or found[1] not in self._names:
            return refuse(421, "This server does not go by that name; see --host_name.")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
            return refuse(403, "Only the page of this server may ask.")
        if not path.startswith(DATA):
            return None
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return refuse(403, "Only the page of this server may ask.")
        if self._token is not None:
            kind, _, given = headers.get("authorization", "").partition(" ")
            # Compared in constant time; header values are Latin-1.
            right = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
            if kind.lower() != "bearer" or not right:
                return refuse(401, "The token of this server is needed.", {"WWW-Authenticate": "Bearer"})
        return None


def refuse(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse({"error": words}, status, headers)


async def discard(receive: Receive, number: int) -> None:
    """Read what is left of a body, up to `number` bytes and for two seconds.

    A connection that is closed over unread bytes is reset, and the client may lose the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARDED_SECONDS):
            while number > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                number -= len(message.get("body", b""))


def _describe(error: Exception) -> str:
    """Kind and place of an error: its text may name files."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.name}, line {last.lineno} of {last.filename.rpartition('/')[2]}"
