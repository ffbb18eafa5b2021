"""The page's server: listens where it is told, takes files up to a size, and lets a browser load nothing from elsewhere."""

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

from pixelbert_plugin.config.shipped import Trained
from pixelbert_plugin.demo.page import CSS, READ_OUT, gradio, page, theme
from pixelbert_plugin.demo.visits import Visits
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.system.environment import variable

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

BESIDE = 1 << 20  # bytes of a request beside the file that it uploads
STARTS_WITHIN, ENDS_WITHIN = 60, 3  # seconds
# what Gradio's page says of pictures, fonts and scripts elsewhere
OUTSIDE = re.compile(
    rb"""<(?:meta|link)\b[^>]*\b(?:content|href)=["']https?://[^>]*>|<script\b[^>]*\bsrc=["']https?://.*?</script>""", re.S
)
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class AtHome:
    """Around Gradio's application: pages without what is elsewhere, headers by which a browser keeps to that, and a limit on
    what a request holds."""

    def __init__(self, app: App, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > self.max_bytes:
            return await _refuse(send, f"a file may have at most {(self.max_bytes - BESIDE) / 1e6:g} MB")
        if b"text/html" in headers.get(b"accept", b""):  # as plain bytes, which can be read here
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}
        start: Message = {}
        parts: list[bytes] = []

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in HEADERS}
                message["headers"] = [pair for pair in message["headers"] if pair[0] not in own] + HEADERS
                is_page = any(name == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"])
                if is_page:
                    start.update(message)
                    return
            elif message["type"] == "http.response.body" and start:
                parts.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                body = OUTSIDE.sub(b"", b"".join(parts))
                kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
                await send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self.app(scope, receive, changed)


async def _refuse(send: Send, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def application(visits: Visits, name: str, max_upload_mb: float, begin: Trained | None = None) -> Any:
    """The page as an ASGI application. Raises UserError where Gradio is not there."""
    gr = gradio()
    from fastapi import FastAPI

    max_bytes = int(max_upload_mb * 1e6)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(AtHome, max_bytes=max_bytes + BESIDE)
    return gr.mount_gradio_app(
        app,
        page(visits, name, begin),
        path="/",
        theme=theme(),
        css=CSS,
        js=READ_OUT,
        footer_links=[],
        show_error=False,
        max_file_size=max_bytes,
        allowed_paths=[],
    )


@contextlib.contextmanager
def serving(
    visits: Visits, name: str, host: str, port: int, max_upload_mb: float, begin: Trained | None = None
) -> Iterator[str]:
    """Serve the page while this lasts; its address. What visitors upload lies in a folder that is gone in the end.

    `begin`: whose picture and question stand on the page at first.
    """
    with contextlib.closing(_listening(host, port)) as listening, _uploads():
        app = application(visits, name, max_upload_mb, begin)
        import uvicorn

        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=ENDS_WITHIN)
        server = uvicorn.Server(config)
        # not in the main thread, where it would handle signals by itself
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(ENDS_WITHIN + 5)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"host={host!r} port={port}: {reason}; port=0 takes one that is free") from error
    return found


@contextlib.contextmanager
def _uploads() -> Iterator[None]:
    """A folder of its own for what Gradio keeps."""
    with (
        tempfile.TemporaryDirectory(prefix="pixelbert_demo_", ignore_cleanup_errors=True) as folder,
        variable("GRADIO_TEMP_DIR", folder),
    ):
        yield


def _wait(server: Any, thread: threading.Thread) -> None:
    """Until it answers."""
    pause = threading.Event()
    for _ in range(20 * STARTS_WITHIN):
        if server.started:
            return
        if not thread.is_alive():
            break
        pause.wait(0.05)
    raise RuntimeError("the page's server did not start")
