"""Serve an index over HTTP: HTML, or JSON to those that ask for it."""

from __future__ import annotations

import hashlib
import socket
from typing import TYPE_CHECKING

import uvicorn
from simple_repository.content_negotiation import Format, select_response_format
from simple_repository.errors import UnsupportedSerialization
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from build_config.errors import SettingsError
from build_config.system.storage import IMMUTABLE
from build_config.tasks.index.catalogue import CATALOGUE, FILES, METADATA_SUFFIX
from build_config.tasks.index.pages import HTML, JSON

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Scope

    from build_config.system.console import Console

PAGES_ASKED_AGAIN = "no-cache"
"""Clients ask whether a page has changed: a publication is visible at once."""
NOT_FOUND = 404
NOT_ACCEPTABLE = 406


def serve(folder: Path, console: Console, *, host: str, port: int) -> None:
    """Serve until Ctrl-C. Port 0 is any free one. Raises ``SettingsError`` without an index, or for a port in use."""
    if not (folder / CATALOGUE).is_file():
        raise SettingsError(f"{folder} is not an index", remedy="nox -s index, or name the folder of one")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        message = f"{host} port {port} cannot be used: {error.strerror}"
        raise SettingsError(message, remedy="--port NUMBER; 0 takes any free one") from error
    with listening:
        name = f"[{host}]" if ":" in host else host
        console.note(f"http://{name}:{listening.getsockname()[1]}/ serves {folder}; Ctrl-C stops")
        config = uvicorn.Config(application(folder), lifespan="off", log_level="warning", server_header=False)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            console.note("stopped")


def application(folder: Path) -> Starlette:
    """The ASGI application for an index."""

    def page(request: Request) -> Response:
        return _page(folder, request)

    return Starlette(
        routes=[
            Mount(f"/{FILES}", app=_Files(directory=folder / FILES)),
            Route("/{path:path}", page, methods=["GET", "HEAD"]),
        ]
    )


class _Files(StaticFiles):
    """Files never change under their names. Half-written ones are hidden."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path.startswith("."):
            raise HTTPException(NOT_FOUND)
        response = await super().get_response(path, scope)
        changes = path.endswith(".yanked.json")
        response.headers["Cache-Control"] = PAGES_ASKED_AGAIN if changes else IMMUTABLE
        if path.endswith(METADATA_SUFFIX):
            response.headers["Content-Type"] = "text/plain; charset=utf-8"
        return response


def _page(folder: Path, request: Request) -> Response:
    """A page, read at once: it may be replaced by another one while it is sent."""
    parts = [part for part in request.path_params["path"].split("/") if part]
    if any(part.startswith(".") or "\\" in part or ":" in part for part in parts):
        raise HTTPException(NOT_FOUND)
    path = folder.joinpath(*parts)
    kind = {".json": "application/json", ".html": "text/html"}.get(path.suffix, "text/plain")
    if path.is_dir():
        if not request.url.path.endswith("/"):
            return RedirectResponse(f"{request.url.path}/")
        form = _form(request) if parts else Format.HTML_LEGACY  # the root is a page for people
        path, kind = path / (JSON if form is Format.JSON_V1 else HTML), form.value
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HTTPException(NOT_FOUND) from error
    tag = f'"{hashlib.sha256(content + kind.encode()).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": PAGES_ASKED_AGAIN, "Vary": "Accept"}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _form(request: Request) -> Format:
    """The form that a client asks for, by PEP 691."""
    try:
        return select_response_format(request.headers.get("Accept", ""))
    except (UnsupportedSerialization, ValueError) as error:
        raise HTTPException(NOT_ACCEPTABLE) from error
