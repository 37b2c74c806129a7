"""The page and the JSON interface of one served run."""

from __future__ import annotations

import base64
import io
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from rbft import __version__
from rbft.errors import VideoError, printable
from rbft.report.templates import render
from rbft.serve.host_check import Guard
from rbft.serve.model import About, Answered
from rbft.serve.request_queue import BusyError, Turns
from rbft.serve.upload import DISCARD_SECONDS, UPLOAD_SECONDS, Upload, UploadError, discard, receive

Predict = Callable[..., Answered]
_FRAME_WIDTH = 320
_TRUE, _FALSE = ("1", "true", "on", "yes"), ("", "0", "false", "off", "no")
_log = logging.getLogger("rbft.serve")


def make_app(
    predict: Predict, shown: About, folder: Path, max_mb: float, turns: Turns, names: Iterable[str] = ()
) -> FastAPI:
    """The application.

    Args:
        predict: Called in one thread, one call at a time, with a video below `folder` and `rationale=`.
        shown: facts about the run that the page shows.
        folder: folder for uploads while they are processed; each gets its own folder, which is always removed.
        max_mb: Most megabytes (1e6 bytes) of a video.
        turns: Whose turn it is.
        names: Host names under which it may be asked, beside localhost and IP addresses.
    """
    # its pages of documentation would fetch scripts from the network
    app = FastAPI(title="rbft", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=tuple(names))
    page, style, script = _page(shown, max_mb), _style(), _text("page.js")

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        return page

    @app.get("/page.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js")
    async def js() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/api/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "in_work_or_waiting": turns.held}

    @app.get("/api/run")
    async def run() -> dict[str, Any]:
        return shown.to_json()

    @app.post("/api/predict")
    async def classify(request: Request) -> JSONResponse:
        try:
            return await _answer(request, predict, folder, max_mb, turns)
        except BusyError as error:
            await discard(request, int(max_mb * 1e6), 1.0 if turns.closed else DISCARD_SECONDS)
            return _busy(error)
        except UploadError as error:
            return _refused(error.status, str(error), {"connection": "close"})
        except OSError as error:
            _log.error("a video could not be received: %s", error)
            return _refused(507, "this server has no room to receive a video; its log says why.")

    return app


async def _answer(request: Request, predict: Predict, folder: Path, max_mb: float, turns: Turns) -> JSONResponse:
    """Receive a video, wait for the model, answer; whatever happens, the video is removed."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        try:
            async with turns.receiving(UPLOAD_SECONDS):
                upload = await receive(request, Path(own), int(max_mb * 1e6))
        except TimeoutError as error:
            raise UploadError(408, f"the video was not here after {UPLOAD_SECONDS:g} s.") from error
        assert upload.path is not None, "receive brings a file or raises"
        video = upload.path
        wanted = {key: _wishes(upload, key) for key in ("rationale", "frames")}

        def work() -> dict[str, Any]:
            start = time.perf_counter()
            answered = predict(video, rationale=wanted["rationale"])
            return _answer_json(upload, answered, time.perf_counter() - start, frames=wanted["frames"])

        try:
            async with turns.place():
                return JSONResponse(await turns.use(work))
        except VideoError as error:
            return _refused(422, f"{upload.name}: {printable(error.reason)}")
        except BusyError as error:
            return _busy(error)
        except Exception:
            # whatever a video or the model trips over costs this one request, and stands in the log in full
            _log.exception("a video could not be answered")
            return _refused(500, "this video could not be answered; the server's log says why.")


def _wishes(upload: Upload, key: str) -> bool:
    """Whether a form asks for something.

    Raises:
        UploadError: It says neither yes nor no.
    """
    said = upload.fields.get(key, "").strip().lower()
    if said not in (*_TRUE, *_FALSE):
        raise UploadError(400, f"the field {key} is {printable(said)[:40]!r}; say 1 or 0.")
    return said in _TRUE


def _busy(error: BusyError) -> JSONResponse:
    return _refused(503, str(error), {"retry-after": str(error.retry_after)})


def _refused(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _answer_json(upload: Upload, answered: Answered, seconds: float, *, frames: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "video": upload.name,
        "predicted": answered.predicted,
        "probability": answered.probabilities[0][1],
        "probabilities": [{"label": name, "probability": value} for name, value in answered.probabilities],
        "calibrated": answered.calibrated,
        **({"at_least": True} if answered.at_least else {}),
        "rationale": answered.rationale,
        "duration": answered.duration,
        "seconds": round(seconds, 3),
    }
    if frames:
        pictures = zip(answered.frames, answered.timestamps, strict=True)
        answer["frames"] = [{"time": round(at, 2), "image": _picture(frame)} for frame, at in pictures]
    return answer


def _picture(frame: Tensor) -> str:
    """A frame (3, H, W) as the address of a small JPEG."""
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    image.thumbnail((_FRAME_WIDTH, _FRAME_WIDTH))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _text(name: str) -> str:
    return (files("rbft.serve") / name).read_text(encoding="utf-8")


def _style() -> str:
    """The reports' style with what only this page has; as a file, because the page allows no style inside of it."""
    shared = re.sub(r"</?style>", "", render("style.html.j2"))
    return shared + _text("page.css")


def _page(shown: About, max_mb: float) -> str:
    environment = Environment(loader=PackageLoader("rbft", "serve"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2").render(shown=shown, max_mb=max_mb, version=__version__)
