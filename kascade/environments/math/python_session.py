"""A stateful Python for tool-integrated reasoning: cells of one conversation share their variables.

The interpreter runs in the sandbox for commands and is talked to through a socket. What it says is its own
output and nothing else is believed of it. A cell that outlasts its time costs the session its variables.
"""

from __future__ import annotations

import json
import socket

from kascade.sandbox.commands import Command, CommandLimits, Process, shared_commands

# Reads cells from descriptor 3 and answers each with what it printed and the value of its last line.
KERNEL = """
import ast, contextlib, io, json, os, socket, sys, traceback
sys.setrecursionlimit(20000)
channel = socket.socket(fileno=3)
reader, names, most = channel.makefile("rb"), {"__name__": "__main__"}, int(sys.argv[1])

class Capped(io.StringIO):
    def write(self, text):
        room = most - self.tell()
        super().write(text[:max(0, room)])
        return len(text)

def run(code, out):
    tree = ast.parse(code, "<cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        if value is not None:
            print(repr(value), file=out)

for line in reader:
    out = Capped()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            run(json.loads(line), out)
        except SystemExit:
            pass
        except BaseException:
            lines = traceback.format_exc(limit=-3).splitlines(keepends=True)
            print("".join(lines), file=out, end="")
    channel.sendall(json.dumps(out.getvalue()).encode() + b"\\n")
"""
MIB = 1024**2


class SandboxTrouble(Exception):
    """The sandbox failed, which says nothing about the code."""


class PythonSession:
    """Starts with the first cell. Close it."""

    def __init__(
        self, *, cell_seconds: float, session_seconds: float, memory_mb: int, output_chars: int
    ) -> None:
        self._cell_seconds, self._session_seconds = cell_seconds, session_seconds
        self._memory_mb, self._output_chars = memory_mb, output_chars
        self._process: Process | None = None
        self._left = b""

    def run(self, code: str) -> str:
        """What the cell printed, for the policy to read. Raises SandboxTrouble."""
        if self._process is None:
            self._process = self._start()
        channel = self._process.channel
        channel.settimeout(self._cell_seconds)
        try:
            channel.sendall(json.dumps(code).encode() + b"\n")
            output = self._line(channel)
        except TimeoutError:
            self.close()
            return f"[timed out after {self._cell_seconds:g} s; the session is new, variables are lost]"
        except OSError:
            output = None
        if output is None:
            return self._died()
        return output

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process, self._left = None, b""

    def _start(self) -> Process:
        limits = CommandLimits(
            wall_seconds=self._session_seconds,
            cpu_seconds=max(1, round(self._session_seconds)),
            memory_bytes=self._memory_mb * MIB,
            output_bytes=MIB,
        )
        argv = ("python3", "-c", KERNEL, str(self._output_chars))
        return shared_commands().open(Command(argv, limits=limits))

    def _line(self, channel: socket.socket) -> str | None:
        """The next answer; None when the session ended or says more than it may."""
        most = 6 * self._output_chars + MIB  # JSON needs up to six characters for one
        while b"\n" not in self._left:
            got = channel.recv(65536)
            if not got or len(self._left) > most:
                return None
            self._left += got
        line, _, self._left = self._left.partition(b"\n")
        try:
            text = json.loads(line)
        except ValueError:
            return None
        return text if isinstance(text, str) else None

    def _died(self) -> str:
        assert self._process is not None
        ended = self._process.close()
        self._process, self._left = None, b""
        if ended.error is not None:
            raise SandboxTrouble(ended.error)
        why = f"the limit on {ended.stopped}" if ended.stopped in ("memory", "time", "output", "size") else ""
        return f"[the session ended{': ' * bool(why)}{why}; it is new, variables are lost]"
