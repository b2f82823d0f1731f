"""Run a command that ends when this process's standard input does: `python watched.py COMMAND...`.

Whoever starts it holds the other end of a pipe. However that process ends, the pipe closes, and the command
is ended with all that it started. Needs the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

ENDS_WITHIN_S = 5.0  # that a command which is asked to end has for it


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and all that it started to end, then make them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(ENDS_WITHIN_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def main(command: list[str]) -> int:
    """The command's exit code."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror or error}\n")
        return 127

    def watch() -> None:
        while os.read(0, 1024):  # standard input, unbuffered: the interpreter may end while this waits
            pass
        end(process)

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    end(process)  # what it leaves behind
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
