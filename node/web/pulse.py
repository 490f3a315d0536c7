"""The page's beat: a call that goes through the event loop and a thread, as every request does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.concurrency import run_in_threadpool

EVERY_S: Final = 1.0


@asynccontextmanager
async def beating(breathe: Callable[[], object]) -> AsyncIterator[None]:
    """Call `breathe` every second while the block runs, by a thread of those that answer requests."""

    async def go_on() -> None:
        while True:
            await run_in_threadpool(breathe)
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
