"""A queue of requests in which no visitor keeps the others out.

A visitor is a session, the name under which an open page asks and listens. As an address may give
itself as many names as it likes, it leaves places to other addresses.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import Any

from fastapi import Request
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, Queue
from gradio.server_messages import ProcessCompletedMessage

NETWORK = "network"  # what waits for the network, rather than for a page's small changes
SLOTS = 12  # visitors whose images are under way at once; they take turns, step by step
SLOTS_OF_ADDRESS = 8  # of them, so that other addresses have some left
MAX_WAITING = 12  # requests of one visitor: a page that opens, or changes its model, sends eight
MAX_OF_ADDRESS = 32  # requests of one address that wait: half of all
MAX_WAITING_BYTES = 64_000_000  # of all requests that wait, with the images in them
IDLE = 0.01  # seconds between looks at the queue: gradio's millisecond costs 8 % of a core
NAMED = "<gradio-sep>"  # what gradio puts before the event in the name of its task
GRACE = 5.0  # seconds until what nobody listens to is dropped


class FairQueue(Queue):
    """Gradio's queue, but: visitors take turns, and of each one walk at most is under way; what
    nobody listens to is dropped; and when it is full, whoever has most waiting loses the last."""

    listeners: Counter[str]
    drops: dict[str, asyncio.Task[None]]  # of whom nobody listens for now, by visitor

    @classmethod
    def of(cls, queue: Queue) -> "FairQueue":
        """Return a queue that gradio has made, as a fair one."""
        queue.__class__ = cls
        assert isinstance(queue, cls)
        queue.listeners, queue.drops = Counter(), {}
        queue.sleep_when_free = queue.progress_update_sleep_when_free = IDLE
        return queue

    async def push(
        self, body: PredictBodyInternal, request: Request, username: str | None
    ) -> tuple[Any, Any, Any]:
        session = body.session_hash or ""
        waiting = self.waiting()
        if sum(event.session_hash == session for event in waiting) >= MAX_WAITING:
            return False, f"{MAX_WAITING} requests of yours are waiting: let them end", "queue_full"
        address = address_of(request)
        near = [event for event in waiting if address_of(event.request) == address]
        if len(near) >= MAX_OF_ADDRESS and not self.make_room(session, near):
            text = f"{MAX_OF_ADDRESS} requests of your address are waiting: try again in a minute"
            return False, text, "queue_full"
        if sum(map(size, waiting)) + request.scope.get("bytes", 0) > MAX_WAITING_BYTES:
            return False, "too many images are on their way: try again in a minute", "queue_full"
        if self.max_size is not None and len(self) >= self.max_size:
            self.make_room(session, self.waiting())
        pushed = await super().push(body, request, username)
        for queue in self.event_queue_per_concurrency_id.values():
            queue.queue[:] = in_turns(queue.queue)
        self.drop_unheard(session)
        return pushed

    def waiting(self) -> list[Event]:
        return [*chain(*(q.queue for q in self.event_queue_per_concurrency_id.values()))]

    def make_room(self, session: str, waiting: list[Event]) -> bool:
        """Drop the last request of the visitor who has most of those that wait, of those first
        whom nobody listens for, and return whether there is room now: there is none where that
        would be the visitor who asks."""
        counts = Counter(event.session_hash for event in waiting)

        def weight(visitor: str) -> tuple[bool, int]:
            return not self.listeners[visitor], counts[visitor]

        most = max(counts, key=weight)
        if most == session or weight(most) <= (False, 1):
            return False
        last = [event for event in waiting if event.session_hash == most][-1]
        self.event_queue_per_concurrency_id[last.concurrency_id].queue.remove(last)
        self.event_ids_to_events.pop(last._id, None)
        text = {"error": "others are waiting, and you have asked for much: ask again"}
        self.send_message(last, ProcessCompletedMessage(output=text, success=False))
        return True

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Return what is next; no further walk of a visitor who has one under way, nor of an
        address that has as many as it may."""
        walks = [e for e in chain(*filter(None, self.active_jobs)) if e.concurrency_id == NETWORK]
        visitors = {event.session_hash for event in walks}
        addresses = Counter(address_of(event.request) for event in walks)
        network = self.event_queue_per_concurrency_id.get(NETWORK)
        waiting = network.queue if network else []
        held = [
            event for event in waiting
            if event.session_hash in visitors
            or addresses[address_of(event.request)] >= SLOTS_OF_ADDRESS
        ]  # fmt: skip
        waiting[:] = [event for event in waiting if event not in held]
        found = super().get_events()
        waiting[:] = in_turns([*waiting, *held])
        return found

    async def remove_from_queue(self, event_id: str) -> None:
        """Drop a request that waits, and end it where it is under way: it alone. Gradio ends
        whatever of the visitor's runs the same function, and so the request that came next."""
        running = [t for t in self._asyncio_tasks if t.get_name().endswith(f"{NAMED}{event_id}")]
        await super().remove_from_queue(event_id)
        await asyncio.sleep(0)  # a task that is ended before its first step frees no place
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Count a listener while the block lasts."""
        self.listeners[session] += 1
        self.drop_unheard(session)
        try:
            yield
        finally:
            self.listeners -= Counter([session])  # which forgets those that are zero
            self.drop_unheard(session)

    def drop_unheard(self, session: str) -> None:
        """Drop what a visitor waits for, and end the walk, unless somebody listens from now, or
        begins to soon: a page that asks again and again listens anew each time."""

        async def drop() -> None:
            await asyncio.sleep(GRACE)
            await self.clean_events(session_hash=session)
            self.pending_messages_per_session.pop(session, None)
            self.pending_event_ids_session.pop(session, None)
            del self.drops[session]

        if task := self.drops.pop(session, None):
            task.cancel()
        if not self.listeners[session]:
            self.drops[session] = asyncio.get_running_loop().create_task(drop())


def in_turns(events: list[Event]) -> list[Event]:
    """Return events in the order in which addresses take turns, and of each its visitors: the
    first of each, then the second."""
    for taker in (lambda e: e.session_hash, lambda e: address_of(e.request)):
        turns: Counter[str] = Counter()
        ranks = []
        for event in events:
            ranks.append(turns[taker(event)])
            turns[taker(event)] += 1
        order = sorted(range(len(events)), key=ranks.__getitem__)  # which keeps equals in order
        events = [events[i] for i in order]
    return events


def address_of(request: Request | None) -> str:
    """Return a visitor's address; for IPv6 that of the network, all of which a visitor has."""
    host = request.client.host if request and request.client else ""
    try:
        long = ip_address(host).version == 6
    except ValueError:
        return host
    return str(ip_network((host, 64), strict=False)) if long else host


def size(event: Event) -> int:
    """Return how many bytes the request had."""
    return int(event.request.scope.get("bytes", 0))
