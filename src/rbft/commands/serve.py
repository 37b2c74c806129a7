"""`rbft serve`: a finished run behind a local page and JSON."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from rbft.arguments import Parser
from rbft.errors import ConfigError

_NEEDED = ("fastapi", "uvicorn", "python_multipart")


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft serve",
        allow_abbrev=False,
        description="Answer videos with a finished run, on a local page and by JSON.",
        epilog="JSON: GET /api/run, GET /api/health, POST /api/predict.",
    )
    parser.advice = "Say --run RUN_FOLDER; rbft serve --help says more."
    parser.add_argument("--run", required=True, type=Path, help="the run's folder")
    parser.add_argument(
        "--port", type=int, default=8420, help="port to listen on (default %(default)s; 0: any free one)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any other than this machine's own "
        "lets everybody in who can reach it (default %(default)s)",
    )
    parser.add_argument("--max-mb", type=float, default=200.0, help="most megabytes of a video (default %(default)g)")
    parser.add_argument("--queue", type=int, default=8, help="videos that may wait (default %(default)s)")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="most time to read a video (default %(default)g)",
    )
    parser.add_argument(
        "--best-only",
        action="store_true",
        help="score the five likeliest classes exactly and bound the others: faster with hundreds of classes",
    )
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        args: command line after `serve`; unknown flags are settings of the run, as with `rbft predict`.

    Raises:
        ConfigError: A flag is wrong, or the packages of the extra `serve` are missing.
        StageError: The folder is not a finished run, or the port is taken.
        Interrupted: It was asked to stop, and has.
    """
    parsed, flags = parser().parse_known_args(list(args))
    require_server("serve")
    if not 0 < parsed.max_mb < float("inf"):
        raise ConfigError(f"--max-mb {parsed.max_mb:g}: must be above 0.")
    if parsed.queue < 0 or not 0 <= parsed.port < 65536:
        raise ConfigError("--queue must be at least 0, and --port lies between 0 and 65535.")

    from rbft.serve.server import serve

    serve(
        parsed.run,
        flags,
        host=parsed.host,
        port=parsed.port,
        max_megabytes=parsed.max_mb,
        places=parsed.queue,
        time_limit=parsed.time_limit,
        best_only=parsed.best_only,
    )
    return 0


def require_server(command: str) -> None:
    """Refuse a command with a page where what serves it is missing.

    Args:
        command: name of the command, for the message.

    Raises:
        ConfigError: A package of the extra `serve` is missing or damaged; says how to install it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"rbft {command} needs {' and '.join(missing)}; install it with pip install 'rbft[serve]'.")
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"rbft {command}: {name} is installed, but damaged ({error}); repair it with "
                "pip install --force-reinstall 'rbft[serve]'."
            ) from error
