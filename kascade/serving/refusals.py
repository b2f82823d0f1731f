"""Errors of requests, in the form of the OpenAI API."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send


class KeyNeeded:
    """Lets nobody through without the key, but to ask whether the server is up. Nothing else stands between a
    client and its request, which so knows when the client leaves."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._key):
                await error_reply(401, "the API key is missing or wrong", None)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def error_body(status: int, message: str, param: str | None) -> dict[str, Any]:
    """In the form of the OpenAI API."""
    kind = {401: "authentication_error", 404: "not_found_error", 500: "server_error"}.get(
        status, "invalid_request_error"
    )
    message = message.encode("utf-8", "backslashreplace").decode()  # what is repeated may be no text
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_reply(status: int, message: str, param: str | None) -> JSONResponse:
    """An error by itself."""
    return JSONResponse(error_body(status, message, param), status_code=status)


async def refused(_: HttpRequest, error: Exception) -> JSONResponse:
    """What was raised with a status."""
    assert isinstance(error, PlainHTTPException)
    return error_reply(error.status_code, str(error.detail), None)


async def not_understood(_: HttpRequest, error: Exception) -> JSONResponse:
    """All errors of a request at once, each with its place."""
    assert isinstance(error, RequestValidationError)
    found = list(dict.fromkeys(_faults(error.errors())))
    message = "; ".join(f"{place}: {what}" if place else what for place, what in found)
    return error_reply(400, message, found[0][0] or None)


def _faults(errors: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Where each fault of a request is, and what it is."""
    for one in errors:
        place = [str(name) for name in one["loc"][1:]]
        what = str(one["msg"]).removeprefix("Value error, ")
        if one["type"] == "json_invalid":
            yield "", f"the body is not JSON: {one['ctx']['error']} at character {one['loc'][-1]}"
        elif place[:1] == ["prompt"] and len(place) > 1:  # of each form that it could have
            yield "prompt", "a text, a list of token ids from 0 on, or a list of these is needed"
        else:
            yield ".".join(place), what
