"""A queue of requests in which no visitor keeps the others out.

A visitor is a session, the name under which an open page asks and listens.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from fastapi import Request
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, Queue
from gradio.server_messages import ProcessCompletedMessage

NETWORK = "network"  # what waits for the network, rather than for a page's small changes
SLOTS = 4  # visitors whose images are under way at once; they take turns, step by step
MAX_WAITING = 12  # requests of one visitor: a page that opens, or changes its model, sends eight
MAX_WAITING_BYTES = 64_000_000  # of all requests that wait, with the images in them
GRACE = 5.0  # seconds until what nobody listens to is dropped

logger = logging.getLogger(__name__)


class FairQueue(Queue):
    """Gradio's queue, but: visitors take turns, and of each one walk at most is under way; what
    nobody listens to is dropped; and when it is full, whoever has most waiting loses the last."""

    listeners: Counter[str]
    checks: set[asyncio.Task[None]]

    @classmethod
    def of(cls, queue: Queue) -> "FairQueue":
        """Return a queue that gradio has made, as a fair one."""
        queue.__class__ = cls
        assert isinstance(queue, cls)
        queue.listeners, queue.checks = Counter(), set()
        return queue

    async def push(
        self, body: PredictBodyInternal, request: Request, username: str | None
    ) -> tuple[Any, Any, Any]:
        session = body.session_hash or ""
        waiting = self.waiting()
        if sum(event.session_hash == session for event in waiting) >= MAX_WAITING:
            return False, f"{MAX_WAITING} requests of yours are waiting: let them end", "queue_full"
        if sum(map(size, waiting)) + request.scope.get("bytes", 0) > MAX_WAITING_BYTES:
            return False, "too many images are on their way: try again in a minute", "queue_full"
        if self.max_size is not None and len(self) >= self.max_size:
            self.make_room(session)
        pushed = await super().push(body, request, username)
        for queue in self.event_queue_per_concurrency_id.values():
            queue.queue[:] = in_turns(queue.queue)
        self.drop_unheard(session)
        return pushed

    def waiting(self) -> list[Event]:
        return [*chain(*(q.queue for q in self.event_queue_per_concurrency_id.values()))]

    def make_room(self, session: str) -> None:
        """Drop the last request of the visitor who has most of them, those first whom nobody
        listens for; none where that would be the visitor who asks."""
        waiting = self.waiting()
        counts = Counter(event.session_hash for event in waiting)

        def weight(visitor: str) -> tuple[bool, int]:
            return not self.listeners[visitor], counts[visitor]

        most = max(counts, key=weight)
        if most == session or weight(most) <= (False, 1):
            return
        last = [event for event in waiting if event.session_hash == most][-1]
        self.event_queue_per_concurrency_id[last.concurrency_id].queue.remove(last)
        self.event_ids_to_events.pop(last._id, None)
        text = {"error": "others are waiting, and you have asked for much: ask again"}
        self.send_message(last, ProcessCompletedMessage(output=text, success=False))

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Return what is next; of a visitor whose walk is under way, no further one."""
        under_way = {
            event.session_hash
            for event in chain(*filter(None, self.active_jobs))
            if event.concurrency_id == NETWORK
        }
        network = self.event_queue_per_concurrency_id.get(NETWORK)
        held = [e for e in network.queue if e.session_hash in under_way] if network else []
        if network:
            network.queue[:] = [e for e in network.queue if e.session_hash not in under_way]
        found = super().get_events()
        if network:
            network.queue[:] = in_turns([*network.queue, *held])
        return found

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Count a listener while the block lasts."""
        self.listeners[session] += 1
        try:
            yield
        finally:
            self.listeners -= Counter([session])  # which forgets those that are zero
            self.drop_unheard(session)

    def drop_unheard(self, session: str) -> None:
        """Drop what a visitor waits for, and end the walk, unless somebody listens soon."""

        async def check() -> None:
            await asyncio.sleep(GRACE)
            if not self.listeners[session]:
                await self.clean_events(session_hash=session)
                self.pending_messages_per_session.pop(session, None)
                self.pending_event_ids_session.pop(session, None)

        task = asyncio.get_running_loop().create_task(check())
        self.checks.add(task)
        task.add_done_callback(self.checks.discard)


def in_turns(events: list[Event]) -> list[Event]:
    """Return events in the order in which visitors take turns: the first of each, then the
    second."""
    turns: Counter[str] = Counter()
    ranks = []
    for event in events:
        ranks.append(turns[event.session_hash])
        turns[event.session_hash] += 1
    return [event for _, _, event in sorted(zip(ranks, range(len(events)), events, strict=True))]


def size(event: Event) -> int:
    """Return how many bytes the request had."""
    return int(event.request.scope.get("bytes", 0))
