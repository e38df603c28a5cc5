"""Errors as OpenAI's API reports them: {"error": {"message", "type", "param", "code"}}.

Source: the OpenAI API reference, "Error codes"; the public client turns the status into an
exception (400 BadRequestError, 404 NotFoundError, 429 RateLimitError, ...).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

LONGEST_MESSAGE = 1000
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
}
_TYPES = {429: "rate_limit_error"}


class ApiError(Exception):
    """Ends the handling of a request with this answer.

    Args:
        status: of HTTP.
        message: a sentence that names the field and the mend.
        param: the field, as "messages[0].content"; None where it is no field's fault.
        code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = (
            message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "..."
        )
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }


class JsonResponse(Response):
    """JSON in ASCII: an error message may quote a half surrogate pair, which UTF-8 cannot hold."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content).encode("ascii")


def to_json(content: Any) -> str:
    """Compact JSON in ASCII."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def invalid_request(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a body, with its field."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = details[0]
    param = field_path(first["loc"]) if first["loc"] else None
    kind = first["type"]
    if kind == "json_invalid":
        return ApiError(400, f"The body is not valid JSON. {first['msg']}", code="invalid_json")
    if param is None:
        return ApiError(400, "The body must be a JSON object.", code="invalid_json")
    if kind == "missing":
        message = f"{param} is required."
    elif kind == "extra_forbidden":
        message = f"'{param}' is not a field of this request."
    else:
        message = f"{param}: {first['msg']}"
    if len(details) > 1:
        message += f" ({len(details) - 1} more problem(s) in this body)"
    return ApiError(400, message, param=param, code=_CODES.get(kind, "invalid_value"))


def field_path(loc: Sequence[str | int]) -> str:
    """("messages", 0, "content") as "messages[0].content"."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path[:200]


def install(app: FastAPI) -> None:
    """Let every error of ``app`` leave in this shape."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return JsonResponse(error.body(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = f"{request.method} {request.url.path}"
        message = {
            404: f"Unknown URL ({path}).",
            405: f"Method not allowed ({path}).",
        }.get(error.status_code, str(error.detail))
        answer = ApiError(error.status_code, message, headers=error.headers)
        return JsonResponse(answer.body(), answer.status, answer.headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        answer = ApiError(500, f"The server met an unforeseen {type(error).__name__}.")
        return JsonResponse(answer.body(), answer.status)
