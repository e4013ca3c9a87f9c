"""What all runs have in common: somebody may not want them any more, and whatever ends them is an outcome."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from agent.host import Outcome
from model.errors import LoxError, RunFailed


@dataclass(slots=True)
class CancellableRun(ABC):
    """A run whose work is `_work`."""

    _working: asyncio.Task[Outcome] | None = field(default=None, init=False)
    _unwanted: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Somebody does not want it any more: it ends as soon as it can, and says so."""
        self._unwanted = True
        if self._working is not None:
            self._working.cancel()

    @abstractmethod
    async def _work(self) -> Outcome:
        """Raises LoxError, OSError."""

    async def _worked(self, seconds: float | None = None) -> Outcome:
        """How the work ended, after `seconds` at the latest. Raises CancelledError if it is the agent that ends."""
        try:
            self._working = asyncio.create_task(self._work())
            if self._unwanted:
                self._working.cancel()
            async with asyncio.timeout(seconds) as limit:
                return await self._working
        except asyncio.CancelledError:
            if not self._unwanted:
                raise
            return Outcome.cancelled()
        except LoxError as error:
            return Outcome.of_error(error)
        except OSError as error:
            if isinstance(error, TimeoutError) and limit.expired():
                why = f"it took longer than {seconds:.0f} s, the most that the job allows"
                return Outcome.of_error(RunFailed("the backup was stopped", why=why))
            why = (error.strerror or str(error)).lower()
            return Outcome.of_error(RunFailed("the system refused", subject=str(error.filename or ""), why=why))
