"""Work that is done by one thread, for a limited number of requests at a time."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FullError(Exception):
    """As many requests as are allowed wait already."""


class OneThread:
    """A thread with a queue that cannot grow. All of it is called from one event loop, so that counting needs no lock.

    A request takes its place before it reads its body: places then bound the memory too.
    """

    def __init__(self, name: str, places: int):
        """Prepare.

        Args:
          name: of the thread.
          places: requests that wait or are in work.
        """
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._free = places

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """One place, until the block ends.

        Raises:
          FullError: there is none.
        """
        if self._free == 0:
            raise FullError
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function` returns, in the thread; after those that came before."""
        return await asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Drop what waits, and end after what is in work."""
        self._pool.shutdown(wait=True, cancel_futures=True)
