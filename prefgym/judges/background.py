"""An event loop in a thread of its own, for code that is called by code that is not async."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any


class Background:
    """Runs coroutines, whether or not the caller has an event loop, as notebooks do.

    It does not survive a fork; :attr:`alive` says so.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = Thread(target=self._run, name="prefgym-judge", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can be used in this process."""
        return self._process == os.getpid() and self._thread.is_alive()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Begin; the caller goes on."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """End the thread, after ``last``; doing so twice is harmless."""
        if not self.alive:
            return
        self.start(self._end(last))
        self._thread.join(timeout=5.0)

    async def _end(self, last: Callable[[], Awaitable[None]]) -> None:
        own = asyncio.current_task()
        begun = [one for one in asyncio.all_tasks() if one is not own]
        for one in begun:
            one.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        try:
            await last()
            await asyncio.sleep(0)  # connections close in the loop's next round
        finally:
            self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()
