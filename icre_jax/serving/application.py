"""The addresses of the server, and what each of them answers.

    GET  /, /page.css, /page.js, /icon.svg     the page; the same bytes for everybody
    GET  /api/about                            the gallery in short, and what verdicts rest on
    GET  /api/gallery?start=N                  some images of it
    GET  /api/gallery/STATE/ROW.jpg            a small one, by its row number in this state of the index
    POST /api/search?modality=M                the body is an image file
    POST /api/search/STATE/ROW                 an image of the gallery
    POST /api/explain/STATE/ROW?modality=M     heat over the body's image and that of a row, which it was found beside
    POST /api/explain/STATE/ROW?asked=N        the same of two rows

An image is the body itself. No form is parsed, which would write large ones to a temporary file: what is sent stays in
memory and is dropped with its answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.serving.guard import discard, refuse
from icre_jax.serving.limits import Limits
from icre_jax.serving.searcher import GoneError, Searcher, UnavailableError, UnreadableFileError, UnusableError
from icre_jax.serving.thread import FullError, OneThread

P = ParamSpec("P")
R = TypeVar("R")

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_AGAIN = {"Retry-After": "2"}
_LOST = (
    "The file of this gallery image cannot be read: it was moved, or is damaged. Put it back at its place, or index "
    "the gallery again."
)
_LONGEST_NUMBER = 10  # digits of a row


def make_application(searcher: Searcher, limits: Limits) -> Starlette:
    """The application without its guard (`icre_jax.serving.guard`).

    Args:
      searcher: who answers.
      limits: of bodies and queues.
    """
    searches = OneThread("search", limits.searches)
    # Of its own, so that images of the gallery come while somebody's search waits.
    small = OneThread("thumbnails", limits.thumbnails)

    async def about(_: Request) -> Response:
        return JSONResponse(await _in_turn(small, searcher.about))

    async def gallery(request: Request) -> Response:
        start = _number(request.query_params.get("start", "0"))
        return JSONResponse(await _in_turn(small, searcher.gallery, start))

    async def thumbnail(request: Request) -> Response:
        state, row = request.path_params["state"], _number(request.path_params["row"])
        jpeg = await _in_turn(small, searcher.thumbnail, state, row)
        return Response(jpeg, media_type="image/jpeg")

    async def search_or_explain(request: Request, function: Callable[..., Any], *args: Any) -> Response:
        """The answer to an image, which is the body of the request."""
        asked = request.query_params.get("modality", "")
        modality: Modality | None = next((name for name in MODALITIES if name == asked), None)
        if modality is None:
            await discard(request.receive, limits.body_bytes)
            raise HTTPException(400, f"modality must be one of {', '.join(MODALITIES)}.")
        try:
            with searches.place():
                data = await _read_body(request, limits)
                return JSONResponse(await searches.run(function, data, modality, *args))
        except FullError:
            await discard(request.receive, limits.body_bytes)
            raise

    async def find_image(request: Request) -> Response:
        return await search_or_explain(request, searcher.find_image)

    async def explain(request: Request) -> Response:
        state, row = request.path_params["state"], _number(request.path_params["row"])
        if "asked" not in request.query_params:
            return await search_or_explain(request, searcher.explain_image, state, row)
        asked = _number(request.query_params["asked"])
        return JSONResponse(await _in_turn(searches, searcher.explain_row, state, asked, row))

    async def find_row(request: Request) -> Response:
        state, row = request.path_params["state"], _number(request.path_params["row"])
        return JSONResponse(await _in_turn(searches, searcher.find_row, state, row))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        searches.close()
        small.close()

    app = Starlette(
        routes=[
            *(_page(path, *file) for path, file in _FILES.items()),
            Route("/api/about", about),
            Route("/api/gallery", gallery),
            Route("/api/gallery/{state}/{row}.jpg", thumbnail),
            Route("/api/search", find_image, methods=["POST"]),
            Route("/api/search/{state}/{row}", find_row, methods=["POST"]),
            Route("/api/explain/{state}/{row}", explain, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _say,
            FullError: _answer_with(503, "Too many searches at a time. Try again in a moment.", _AGAIN),
            UnusableError: _say_unusable,
            GoneError: _answer_with(410, "There is no such image in the gallery now. Load the page again."),
            UnreadableFileError: _answer_with(410, _LOST),
            UnavailableError: _answer_with(503, "The index cannot be searched any more. Start again.", _AGAIN),
            Exception: _answer_with(500, "Something went wrong here; the log has the kind of error."),
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # no answer repeats an address that was asked for
    return app


def _page(path: str, name: str, media_type: str) -> Route:
    content = (resources.files(__package__) / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(path, answer)


async def _in_turn(thread: OneThread, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a request without a body gets, when its turn comes."""
    with thread.place():
        return await thread.run(function, *args, **kwargs)


async def _read_body(request: Request, limits: Limits) -> bytes:
    """The image as it was sent; refused by what it says of its size, and by what comes."""
    too_large = HTTPException(413, f"An image may have {limits.body_bytes // 2**20} MiB at most.")
    said = request.headers.get("content-length")  # digits, or the server has refused it
    if said is not None and (len(said) > 15 or int(said) > limits.body_bytes):
        await discard(request.receive, limits.body_bytes)
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.body_bytes:
                    body.clear()
                    await discard(request.receive, limits.body_bytes)
                    raise too_large
                body += chunk
    except TimeoutError as error:
        raise HTTPException(408, f"The image was not there after {limits.body_seconds:g} seconds.") from error
    return bytes(body)


def _number(text: str) -> int:
    """A row number; whatever else stands there is no address."""
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise HTTPException(404, "Not found.")
    return int(text)


def _answer_with(status: int, words: str, headers: dict[str, str] | None = None) -> Any:
    async def answer(_: Request, __: Exception) -> Response:
        return refuse(status, words, headers)

    return answer


async def _say(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refuse(error.status_code, error.detail, dict(error.headers or {}))


async def _say_unusable(_: Request, error: Exception) -> Response:
    return refuse(422, f"This image cannot be used: {error}.")
