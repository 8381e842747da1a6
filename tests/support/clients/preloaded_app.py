"""An application of llama_cpp.server for ``gunicorn --preload``.

The parent imports it, so all workers share one copy of the code. Each worker loads its own model (of the file that
``CONFIG_FILE`` names): a process that was forked cannot use the GPU that its parent has started. The header
``x-worker`` says which process has answered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llama_cpp.server.app import create_app

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]


class Application:
    """The server's application, made when the worker starts: ASGI's first event in a worker is its start."""

    def __init__(self) -> None:
        self._application: Any = None

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        async def send_with_worker(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-worker", str(os.getpid()).encode())]
            await send(message)

        if self._application is None:
            self._application = create_app()
        await self._application(scope, receive, send_with_worker)


application = Application()
