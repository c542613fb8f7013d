"""Refuse requests that the page never sends."""

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .uploads import MAX_BYTES

MAX_REQUEST = 3 * MAX_BYTES // 2  # bytes; base64 makes an upload longer by a third


class RequestFilter:
    """ASGI middleware that refuses two kinds of request.

    Bodies of more than MAX_REQUEST bytes: with status 413, as they arrive, before the whole of one
    is in memory. Gradio's deep links, which store a visitor's page on disk for everyone: with 404.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_REQUEST:
                raise HTTPException(413, f"requests may have {MAX_REQUEST:,} bytes at most")
            return message

        if scope["type"] == "http" and scope["path"].endswith("/deep_link"):
            await PlainTextResponse("this page has no deep links", 404)(scope, receive, send)
        else:
            await self.app(scope, limited_receive, send)
