"""`rbft serve`: load a finished run once and answer videos until asked to stop."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import logging
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError, Interrupted, StageError

_NEEDED = ("fastapi", "uvicorn", "python_multipart")


def _parser() -> Parser:
    parser = Parser(
        prog="rbft serve",
        allow_abbrev=False,
        description="Classify videos with a finished run, on a "
        "local page and by JSON: GET /api/run, GET /api/health, POST /api/predict.",
    )
    parser.advice = "Say --run RUN_FOLDER; rbft serve --help says more."
    parser.add_argument("--run", required=True, type=Path, help="the run's folder")
    parser.add_argument("--port", type=int, default=8420, help="to listen on (default %(default)s; 0: any free one)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any other than this machine's own "
        "lets everybody in who can reach it (default %(default)s)",
    )
    parser.add_argument("--max-mb", type=float, default=200.0, help="most megabytes of a video (default %(default)g)")
    parser.add_argument("--queue", type=int, default=8, help="videos that may wait (default %(default)s)")
    return parser


def serve(args: Sequence[str]) -> None:
    """Run the server.

    Args:
        args: The command line behind `serve`; what it does not know goes to the run, as with `rbft predict`.

    Raises:
        ConfigError: A flag is wrong, or the packages of the extra `serve` are missing.
        StageError: The folder is no finished run, or the port is taken.
        Interrupted: It was asked to stop, and has.
    """
    own, flags = _parser().parse_known_args(list(args))
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"rbft serve needs {' and '.join(missing)}; install it with pip install 'rbft[serve]'.")
    if not 0 < own.max_mb < float("inf"):
        raise ConfigError(f"--max-mb {own.max_mb:g}: must be above 0.")
    if own.queue < 0 or not 0 <= own.port < 65536:
        raise ConfigError("--queue must be at least 0, and --port lies between 0 and 65535.")

    listening = _listen(own.host, own.port)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with listening, tempfile.TemporaryDirectory(prefix="rbft-serve-") as folder:
            _run(own, flags, listening, Path(folder).resolve())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, which may take minutes."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        message = f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port."
        raise StageError(message) from error
    return listening


def _run(own: argparse.Namespace, flags: Sequence[str], listening: socket.socket, folder: Path) -> None:
    import uvicorn

    from rbft.serve.about import about
    from rbft.serve.app import make_app
    from rbft.serve.guard import own_names
    from rbft.serve.model import ServedModel
    from rbft.serve.turns import Turns
    from rbft.terminal import make_console, quieten

    console = make_console()
    quieten()
    stopped: list[int] = []
    # the server restores these when it has stopped, and then repeats the signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    model = ServedModel(own.run, flags)
    console.print(f"loading {escape(str(own.run))}")
    told = about(own.run, model.load(), model.labels)
    turns = Turns(own.queue)
    app = make_app(model.predict, told, folder, own.max_mb, turns, own_names(own.host))

    class Server(uvicorn.Server):
        """Lets the video in work finish, and those that wait know at once."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            turns.close()
            super().handle_exit(sig, frame)

    port = listening.getsockname()[1]
    shown = f"[{own.host}]" if ":" in own.host else own.host
    if not _loopback(own.host):
        console.print(
            f"[bold]warning:[/] listening on {escape(own.host)}: there is no authentication; whoever "
            "reaches this address can use the model and see the run's figures."
        )
    if not stopped:
        console.print(f"open http://{escape(shown)}:{port}  (Ctrl-C stops)")
        logging.getLogger("rbft.serve").setLevel(logging.INFO)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_keep_alive=5
        )
        Server(config).run(sockets=[listening])
    if stopped:
        raise Interrupted(stopped[0], "stopped; the video in work was answered.")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
