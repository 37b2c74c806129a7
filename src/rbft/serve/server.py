"""The server of a finished run: it listens, loads the model once, and answers until asked to stop."""

from __future__ import annotations

import ipaddress
import logging
import math
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.markup import escape

from rbft.errors import Interrupted, StageError

_LAST_SECONDS = 30  # beside its reading, for what the model does with the video in work, and for its answer


def serve(
    run: Path,
    flags: Sequence[str],
    *,
    host: str,
    port: int,
    max_megabytes: float,
    places: int,
    time_limit: float,
    best_only: bool = False,
) -> None:
    """Answer videos with a finished run until asked to stop.

    Args:
        run: The run's folder.
        flags: settings of the run to change, as with `rbft predict`.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        max_megabytes: most megabytes of a video.
        places: Videos that may wait.
        time_limit: Seconds that reading one video may take.
        best_only: whether only the likeliest classes are scored exactly.

    Raises:
        ConfigError: The time is not above 0, or `best_only` does not go with how the run answers.
        StageError: The folder is no finished run, or the port is taken.
        Interrupted: It was asked to stop, and has.
    """
    listening = listen(host, port)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with listening, tempfile.TemporaryDirectory(prefix="rbft-serve-") as folder:
            _run(run, flags, listening, Path(folder).resolve(), host, max_megabytes, places, time_limit, best_only)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before anything that may take minutes.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.

    Raises:
        StageError: The port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        message = f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port."
        raise StageError(message) from error
    return listening


def _run(
    run: Path,
    flags: Sequence[str],
    listening: socket.socket,
    folder: Path,
    host: str,
    max_megabytes: float,
    places: int,
    time_limit: float,
    best_only: bool,
) -> None:
    import uvicorn

    from rbft.serve.app import make_app
    from rbft.serve.host_check import own_names
    from rbft.serve.model import ServedModel, about
    from rbft.serve.request_queue import Turns
    from rbft.terminal import make_console, quieten

    console = make_console()
    quieten()
    turns = Turns(places)
    stopped: list[int] = []
    in_work: list[bool] = []
    # the server restores these when it has stopped, and then repeats the signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    model = ServedModel(run, flags, time_limit, best_only=best_only)
    console.print(f"loading {escape(str(run))}")
    about_run = about(run, model.load(), model.labels, model.cautions)
    for caution in about_run.cautions:
        console.print(f"[bold]warning:[/] {escape(caution)}")
    app = make_app(model.predict, about_run, folder, max_megabytes, turns, own_names(host))

    class Server(uvicorn.Server):
        """Lets the video in work finish, and those that wait know at once."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            in_work.append(turns.in_work)
            turns.close()
            super().handle_exit(sig, frame)

    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if not _loopback(host):
        console.print(
            f"[bold]warning:[/] listening on {escape(host)}: there is no authentication; whoever "
            "reaches this address can use the model and see the run's figures."
        )
    if not stopped:
        console.print(f"open http://{escape(shown)}:{port}  (Ctrl-C stops)")
        logging.getLogger("rbft.serve").setLevel(logging.INFO)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=None if math.isinf(time_limit) else math.ceil(time_limit) + _LAST_SECONDS,
        )
        Server(config).run(sockets=[listening])
    if stopped:
        # asked a second time, it waits for nobody
        said = "not answered" if turns.in_work else "answered"
        raise Interrupted(stopped[0], f"stopped; the video in work was {said}." if any(in_work) else "stopped.")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
