"""The page of a labelling session and the requests that it sends."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from rbft import __version__
from rbft.errors import DataError, RBFTError, VideoError, printable
from rbft.files import NOT_JSON
from rbft.labelling.session import Session
from rbft.report.templates import render
from rbft.serve.host_check import POLICY, Guard

_MOST_BYTES = 4096  # of a request: a number and a name


def make_app(session: Session, names: tuple[str, ...] = ()) -> FastAPI:
    """The application.

    Args:
        session: what is labelled.
        names: host names under which it may be asked, beside localhost and IP addresses.
    """
    # its pages of documentation would fetch scripts from the network
    app = FastAPI(title="rbft label", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=names, policy=f"{POLICY}; media-src 'self'")
    page, style, script = _page(session), _style(), _text("page.js")

    @app.exception_handler(VideoError)
    async def unreadable(_: Request, error: VideoError) -> JSONResponse:
        return JSONResponse({"detail": printable(error.reason)}, 422)

    @app.exception_handler(RBFTError)
    async def refused(_: Request, error: RBFTError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400 if isinstance(error, DataError) else 500)

    @app.exception_handler(IndexError)
    async def no_clip(_: Request, error: IndexError) -> JSONResponse:
        return JSONResponse({"detail": "there is no such clip."}, 404)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        return page

    @app.get("/page.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js")
    async def js() -> Response:
        return Response(script, media_type="text/javascript")

    # plain functions run in threads, so that a long decode holds nobody up
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return session.state()

    @app.get("/api/media/{number}")
    def media(number: int) -> FileResponse:
        return FileResponse(session.file(number))

    @app.get("/api/frames/{number}")
    def frames(number: int) -> list[dict[str, Any]]:
        return session.frames(number)

    @app.get("/api/answer/{number}")
    def answer(number: int, rationale: bool = False) -> JSONResponse:
        if session.opinions is None:
            return JSONResponse({"detail": "there is no run to ask; start with --run RUN_FOLDER."}, 404)
        from rbft.labelling.opinions import Superseded

        try:
            return JSONResponse(session.opinions.of(session.clip(number), rationale=rationale))
        except Superseded:
            return JSONResponse({"detail": "another clip was asked about meanwhile."}, 409)

    @app.post("/api/label")
    async def label(request: Request) -> JSONResponse:
        number, name = await _read(request)
        return JSONResponse(await run_in_threadpool(session.label, number, name))

    return app


async def _read(request: Request) -> tuple[int, str]:
    """Number and name of a request to label.

    Raises:
        DataError: It is no such request.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise DataError("the request is too long.")
    try:
        stated = json.loads(content)
    except NOT_JSON as error:
        raise DataError("the request is not valid JSON.") from error
    number, name = (stated.get("clip"), stated.get("label")) if isinstance(stated, dict) else (None, None)
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str):
        raise DataError("the request needs a clip (a number) and a label (text).")
    return number, name


def _text(name: str) -> str:
    return (files("rbft.labelling") / name).read_text(encoding="utf-8")


def _style() -> str:
    """The reports' style with what only this page has; as a file, because the page allows no style inside of it."""
    return re.sub(r"</?style>", "", render("style.html.j2")) + _text("page.css")


def _page(session: Session) -> str:
    environment = Environment(loader=PackageLoader("rbft", "labelling"), autoescape=True, undefined=StrictUndefined)
    found = session.found
    return environment.get_template("page.html.j2").render(
        root=found.root, table=found.table.path.name, run=session.opinions is not None, version=__version__
    )
