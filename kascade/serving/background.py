"""A model behind its API while something else runs in this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

ENDS_WITHIN_S = 10.0
ASKS_EVERY_S = 0.01


@contextmanager
def in_background(app: FastAPI) -> Iterator[str]:
    """Serve an API on a free port of loopback. Gives its address, without a path."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(ASKS_EVERY_S)
    if not server.started:
        raise RuntimeError("the API could not be started")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=ENDS_WITHIN_S)
