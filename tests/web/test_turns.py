"""The queue of one thread: its order, its bound, and clients that leave."""

import asyncio
import time

import pytest

from ames.web.refusals import Refusal
from ames.web.turns import Turns


async def _gone():
    return True


async def _there():
    return False


def test_requests_are_answered_in_order_or_refused():
    async def ask(turns, number, done):
        async with turns.place():
            await turns.run(time.sleep, 0.002)
            done.append(number)

    async def everyone():
        turns, done = Turns(5, "test"), []
        asked = [asyncio.create_task(ask(turns, number, done)) for number in range(12)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert turns.held == 0
        await ask(turns, 99, done)
        turns.close()
        return done, found

    done, found = asyncio.run(everyone())
    assert done == [0, 1, 2, 3, 4, 99]
    assert found[:5] == [None] * 5
    assert all(isinstance(x, Refusal) and x.status == 503 for x in found[5:])
    assert found[5].headers == {"Retry-After": "1"}


def test_a_client_that_left_is_not_computed_for():
    async def asked():
        turns, done = Turns(5, "test"), []
        with pytest.raises(Refusal, match="has left"):
            await turns.run(done.append, 1, left=_gone)
        await turns.run(done.append, 2, left=_there)
        turns.close()
        return done

    assert asyncio.run(asked()) == [2]


def test_a_failure_gives_its_place_back():
    async def asked():
        turns = Turns(1, "test")
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with turns.place():
                    await turns.run(lambda: 1 / 0)
        turns.close()
        return turns.held

    assert asyncio.run(asked()) == 0
