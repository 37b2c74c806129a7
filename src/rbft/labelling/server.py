"""The server of a labelling session, on this machine alone, until it is asked to stop."""

from __future__ import annotations

import importlib
import signal
import socket
import threading
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from rbft.errors import Interrupted
from rbft.labelling.session import Session
from rbft.serve.server import listen

_HOST = "127.0.0.1"


def serve(make_session: Callable[[], Session], port: int, console: Console) -> None:
    """Show the page until asked to stop.

    Args:
        make_session: called once the port is taken; it may take a while.
        port: port to listen on; 0 for any free one.
        console: console to say on where to look.

    Raises:
        StageError: The port is taken.
        Interrupted: It was asked to stop, and has; every label that was answered is on the disk.
    """
    import uvicorn

    from rbft.labelling.app import make_app

    with listen(_HOST, port) as listening:
        session = make_session()
        stopped: list[int] = []
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # the server restores these when it has stopped, and then repeats the signal
        for number in before:
            signal.signal(number, lambda number, _: stopped.append(number))
        try:
            # it takes seconds, and the first clip should not wait for all of them
            threading.Thread(target=importlib.import_module, args=("rbft.video.clip",), daemon=True).start()
            console.print(f"open http://{_HOST}:{_port(listening)}  (Ctrl-C stops)")
            config = uvicorn.Config(
                make_app(session),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=5,
                timeout_graceful_shutdown=10,
            )
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped:
            state = session.state()
            said = f"{state['labelled']} of {len(state['clips'])} clips have a label, in {session.found.table.path}"
            raise Interrupted(stopped[0], escape(f"stopped; {said}."))


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
