"""Requests that the page never sends."""

import asyncio

from ddpm.demo.uploads import MAX_BYTES
from lazy import Module, optional

optional("gradio")
filtering = Module("ddpm.demo.middleware")

JOIN = "/gradio_api/queue/join"


def posted(app, path, chunks):
    """The status of a request whose body comes in these chunks, and how many of them were read."""
    sent, read = [], []

    async def receive():
        if len(read) == len(chunks):
            return {"type": "http.disconnect"}
        read.append(chunks[len(read)])
        more = len(read) < len(chunks)
        return {"type": "http.request", "body": read[-1], "more_body": more}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], len(read)


def test_large_requests_are_refused_as_they_come():
    from fastapi import FastAPI
    from starlette.middleware import Middleware

    app = FastAPI(middleware=[Middleware(filtering.RequestFilter)])

    @app.post("/{path:path}")
    async def take(path: str, body: list[int]) -> int:
        return len(body)

    assert posted(app, JOIN, [b"[1,", b"2]"]) == (200, 2)
    assert posted(app, JOIN, [b" " * 10**6] * 100) == (413, filtering.MAX_REQUEST // 10**6 + 1)
    assert posted(app, "/gradio_api/deep_link", [b"[1]"]) == (404, 0)
    assert filtering.MAX_REQUEST > MAX_BYTES * 4 / 3 + 10**6
