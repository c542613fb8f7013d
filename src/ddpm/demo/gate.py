"""What the page never sends is not let in."""

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .uploads import MAX_BYTES

MAX_SENT = 3 * MAX_BYTES // 2  # bytes of a request: a file as text is longer by a third


class Gate:
    """Refuses requests above MAX_SENT bytes, as they come, before all of one is in memory; and
    gradio's deep links, which keep what a visitor's page shows on disk for everyone."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > MAX_SENT:
                raise HTTPException(413, f"more than {MAX_SENT:,} bytes are not taken here")
            return message

        if scope["type"] == "http" and scope["path"].endswith("/deep_link"):
            await PlainTextResponse("there are no such links here", 404)(scope, receive, send)
        else:
            await self.app(scope, counted, send)
