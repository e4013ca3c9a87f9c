"""The contract for Ray; and what a process per lane promises: it may be killed at any time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.executors import Executor, open_executor
from tests.contracts.executor import ExecutorContract

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session() -> Iterator[Executor]:
    with open_executor("ray") as executor:
        yield executor


class TestRay(ExecutorContract):
    @pytest.fixture
    def executor(self, session: Executor) -> Executor:
        return session
