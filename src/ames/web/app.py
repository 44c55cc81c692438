"""The application: pages and JSON answers of a collection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ames.errors import AmesError
from ames.web.engine import MAX_PIXELS, Engine, Query
from ames.web.guard import Access, Guard
from ames.web.pictures import SIDES, Pictures, state_of
from ames.web.refusals import Refusal, on_defect, on_library_error, on_refusal, on_unknown_place
from ames.web.turns import Turns
from ames.web.uploads import box_of, read_body, whole

STATIC = Path(__file__).with_name("static")
FILES = {"/": "serve.html", "/serve.css": "serve.css", "/serve.js": "serve.js", "/icon.svg": "icon.svg"}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
log = logging.getLogger(__name__)

TOP, MOST = 100, 1000  # results of a search: unless the request says, and at most
PAGE, LARGEST = 48, 200  # photos of a page of the collection
_WATCH = 1.0  # seconds between looks at the collection's files
_PICTURES = 512  # requests for pictures that are made or wait


@dataclass(frozen=True)
class Limits:
    """queue: searches and explanations that are computed or wait. upload: bytes of a photo."""

    queue: int = 32
    upload: int = 32 << 20


class Site:
    """The answers. Each method answers one address."""

    def __init__(self, engine: Engine, pictures: Pictures, limits: Limits) -> None:
        self.engine, self.pictures, self.limits = engine, pictures, limits
        self.turns, self.drawing = Turns(limits.queue, "model"), Turns(_PICTURES, "pictures")

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Look at the collection's files while requests are answered; end the workers after them."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            for turns in (self.turns, self.drawing):
                turns.close()
            for worker in (self.engine.worker, self.pictures.worker):
                worker.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            try:
                await self.turns.run(self.engine.refresh)
            except Exception:  # a defect; the server goes on with what is open
                log.exception("the collection could not be looked at")

    async def file(self, request: Request) -> Response:
        path = STATIC / FILES[request.url.path]
        return FileResponse(path, headers={"Cache-Control": "no-cache"}, media_type=TYPES[path.suffix])

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def about(self, _: Request) -> Response:
        return JSONResponse(self.engine.shelf.about | {"max_upload_bytes": self.limits.upload})

    async def photos(self, request: Request) -> Response:
        number, size = whole(request, "page", 1, 10**9 - 1), whole(request, "size", PAGE, LARGEST)
        return JSONResponse(self.engine.shelf.page(number, size))

    async def picture(self, request: Request) -> Response:
        """A picture of the collection, by id only."""
        side = SIDES[request.url.path.rpartition("/")[2]]
        path = self.engine.shelf.path(request.path_params["photo"])
        state = await asyncio.to_thread(state_of, path)
        tag = {"ETag": f'"{state}"', "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == tag["ETag"]:
            return Response(status_code=304, headers=tag)
        picture = self.pictures.kept(path, side, state)
        if picture is None:
            async with self.drawing.place():
                left = request.is_disconnected
                picture = await self.drawing.run(self.pictures.make, path, side, state, left=left)
        return Response(picture, headers=tag, media_type="image/jpeg")

    async def preview(self, request: Request) -> Response:
        """An upload as a JPEG, for a browser that cannot show its format; headers say its whole size."""
        async with self.turns.place():  # the bound of uploads that are in memory
            data = await read_body(request, self.limits.upload)
            found, picture = await self.drawing.run(self.pictures.preview, data, MAX_PIXELS)
        size = {"X-Photo-Height": str(found.height), "X-Photo-Width": str(found.width)}
        return Response(picture, headers=size, media_type="image/jpeg")

    async def search(self, request: Request) -> Response:
        top, box = whole(request, "top", TOP, MOST), box_of(request)
        photo = request.query_params.get("photo")
        async with self.turns.place():
            if photo is None:
                query = Query(await read_body(request, self.limits.upload), None, box)
            else:
                self.engine.shelf.name(photo)
                query = Query(None, photo, box)
            left = request.is_disconnected
            return JSONResponse(await self.turns.run(self.engine.search, query, top, left=left))

    async def explain(self, request: Request) -> Response:
        handle, photo = (request.query_params.get(name, "") for name in ("query", "photo"))
        self.engine.shelf.name(photo)
        async with self.turns.place():
            left = request.is_disconnected
            return JSONResponse(await self.turns.run(self.engine.explain, handle, photo, left=left))


def make_app(engine: Engine, access: Access, limits: Limits | None = None) -> ASGIApp:
    """Return the application of a collection."""
    site = Site(engine, Pictures(), limits or Limits())
    routes = [
        *(Route(place, site.file) for place in FILES),
        Route("/health", site.health),
        Route("/api/about", site.about),
        Route("/api/photos", site.photos),
        *(Route(f"/api/photos/{{photo}}/{kind}", site.picture, name=kind) for kind in SIDES),
        Route("/api/preview", site.preview, methods=["POST"]),
        Route("/api/search", site.search, methods=["POST"]),
        Route("/api/explain", site.explain),
    ]
    handlers = {
        Refusal: on_refusal,
        AmesError: on_library_error,
        HTTPException: on_unknown_place,
        Exception: on_defect,
    }
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=site.lifespan)  # type: ignore[arg-type]
    return Guard(app, access)
