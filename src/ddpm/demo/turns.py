"""Let several walks share a network, step by step."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """One walk at a time takes a step: of the visitors who wait, the one who has had the least
    time, and of that visitor's walks the one that has had the least. So a short walk is not kept
    waiting by a long one, and a visitor with many has no more than another with one."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._busy = False
        self._seconds: dict[object, float] = {}  # of visitors, and of walks, that are here
        self._walks: dict[object, str] = {}  # the visitor of each
        self._waiting: set[object] = set()

    def share(self, walk: Iterator[T], visitor: str) -> Iterator[T]:
        """Yield what a walk yields, each made in a turn of its visitor's."""
        me = object()
        with self._changed:
            self._arrive(me, visitor)
        try:
            while True:
                with self._turn(me):
                    try:
                        step = next(walk)
                    except StopIteration:
                        return
                yield step
        finally:
            with self._changed:
                self._leave(me)

    def _arrive(self, me: object, visitor: str) -> None:
        """Begin with as much time as whoever has had the least: a newcomer neither waits for the
        others nor keeps them waiting."""
        if visitor not in self._seconds:
            self._seconds[visitor] = self._least(set(self._walks.values()))
        self._seconds[me] = self._least({w for w, v in self._walks.items() if v == visitor})
        self._walks[me] = visitor
        self._changed.notify_all()

    def _least(self, who: Iterable[object]) -> float:
        return min((self._seconds[key] for key in who), default=0.0)

    def _leave(self, me: object) -> None:
        visitor = self._walks.pop(me)
        del self._seconds[me]
        if visitor not in self._walks.values():
            del self._seconds[visitor]
        self._changed.notify_all()

    @contextmanager
    def _turn(self, me: object) -> Iterator[None]:
        with self._changed:
            self._waiting.add(me)
            self._changed.wait_for(lambda: not self._busy and me is self._next())
            self._waiting.discard(me)
            self._busy = True
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                for who in (me, self._walks[me]):
                    self._seconds[who] += time.perf_counter() - start
                self._changed.notify_all()

    def _next(self) -> object:
        """Return who is next; of equals, the first: all who wait must agree, or nobody goes on."""
        seconds, waiting = self._seconds, (walk for walk in self._walks if walk in self._waiting)
        return min(waiting, key=lambda walk: (seconds[self._walks[walk]], seconds[walk]))
