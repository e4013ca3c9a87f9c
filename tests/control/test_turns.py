"""What is costly is done a little at a time, and who cannot have a turn hears so."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from control.alerts import chat
from control.alerts.guard import Guard
from control.api.problems import Problem
from control.api.turns import Turns
from control.auth.passwords import AT_ONCE, Passwords


def test_who_gets_no_turn_in_time_is_told_when_to_come_again() -> None:
    turns = Turns(2, seconds=0.2)

    async def crowd() -> None:
        async with turns.take(), turns.take():
            with pytest.raises(Problem) as refused:
                async with turns.take():
                    pass
            assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        for _ in range(3):  # none was lost
            async with turns.take(), turns.take():
                pass

    asyncio.run(crowd())


def test_the_address_of_a_chat_is_not_checked_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "CHECKS", Turns(1, seconds=0.2))
    guard = Guard([ipaddress.ip_network("127.0.0.1/32")], "lox.example.org")

    async def behind_a_slow_one() -> None:
        async with chat.CHECKS.take():
            async with asyncio.timeout(60):
                await chat.check(guard, "ntfy://127.0.0.1:9/topic")

    with pytest.raises(Problem, match="as much of this as it can") as refused:
        asyncio.run(behind_a_slow_one())
    assert refused.value.status == 503 and refused.value.headers["Retry-After"]


def test_a_flood_of_passwords_is_refused_and_not_queued() -> None:
    passwords = Passwords(seconds=0.02)

    async def flood() -> None:
        answers = await asyncio.gather(
            *(passwords.hash(f"password {number}") for number in range(100)), return_exceptions=True
        )
        refused = [one for one in answers if isinstance(one, Problem)]
        assert {one.status for one in refused} == {503} and len(answers) - len(refused) >= AT_ONCE
        assert await passwords.verify("correct horse", await passwords.hash("correct horse"))

    asyncio.run(flood())
