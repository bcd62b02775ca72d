"""Notices background tasks that die, so that a process ends instead of limping without one of them."""

import asyncio

import structlog

SCAN_INTERVAL_S = 0.5

log = structlog.get_logger()


class Supervisor:
    """Watches every task of the event loop that lives longer than one scan.

    Such a task has failed when it ended with an exception that nobody looked at: whoever awaits a
    task looks at its exception, a request's task is awaited by its listener, a background loop's by
    nobody until it is closed. So no role has to register anything, and none can forget to.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Gets the name of the first task that dies; cancelled by ``close``."""
        self._task = asyncio.create_task(self._watch(), name="supervisor")

    def close(self) -> None:
        """From here on tasks may end as they like."""
        self._task.cancel()
        self.failed.cancel()

    async def _watch(self) -> None:
        known: set[asyncio.Task] = set()
        suspects: set[asyncio.Task] = set()
        while True:
            await asyncio.sleep(SCAN_INTERVAL_S)
            for task in filter(_unnoticed, suspects):
                self._report(task)
            # Who awaits a task may run after this scan: only what nobody noticed until the next one is dead.
            suspects = {task for task in known - suspects if task.done() and _unnoticed(task)}
            known = asyncio.all_tasks()

    def _report(self, task: asyncio.Task) -> None:
        log.error("background task died", task=task.get_name(), exc_info=task.exception())
        if not self.failed.done():
            self.failed.set_result(task.get_name())


def _unnoticed(task: asyncio.Task) -> bool:
    # The flag behind asyncio's own "Task exception was never retrieved"; asyncio itself reads it only
    # when the task is freed, and a role keeps its tasks. True only after an exception, never a cancellation.
    return getattr(task, "_log_traceback", False)
