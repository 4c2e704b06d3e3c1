"""Texts of concurrent callers in common batches."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from inference.service import RequestBatcher

Value = TypeVar("Value")


class Lengths:
    """Computes the length of each text and records the batches; `gate` blocks it."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: Sequence[str]) -> list[int]:
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("a bad text")
        return [len(text) for text in texts]


def run(
    compute: Lengths,
    story: Callable[[RequestBatcher[int]], Awaitable[Value]],
    max_batch_size: int = 4,
    batch_timeout: float = 0.02,
) -> Value:
    async def tell() -> Value:
        batcher = RequestBatcher(compute, max_batch_size, batch_timeout)
        async with batcher.running():
            return await story(batcher)

    return asyncio.run(tell())


def test_every_caller_gets_its_own_results() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> list[list[int]]:
        return await asyncio.gather(*(batcher.submit(["x" * size, "y" * (size + 1)]) for size in range(50)))

    assert run(compute, story) == [[size, size + 1] for size in range(50)]
    assert max(map(len, compute.batches)) == 4
    assert len(compute.batches) == 25
    assert len(compute.threads) == 1
    assert threading.get_ident() not in compute.threads


@pytest.mark.parametrize("batch_timeout", [0.0, 0.02])
def test_a_lonely_text_does_not_wait_for_others(batch_timeout: float) -> None:
    async def story(batcher: RequestBatcher[int]) -> list[int]:
        return await asyncio.wait_for(batcher.submit(["abc"]), 5)

    assert run(Lengths(), story, batch_timeout=batch_timeout) == [3]


def test_what_arrives_while_the_worker_is_busy_is_computed_together() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> None:
        compute.gate.clear()
        first = asyncio.create_task(batcher.submit(["first"]))
        while not compute.batches:
            await asyncio.sleep(0.01)
        later = [asyncio.create_task(batcher.submit([text])) for text in ("a", "b", "c")]
        await asyncio.sleep(0.1)
        compute.gate.set()
        assert await asyncio.gather(first, *later) == [[5], [1], [1], [1]]

    run(compute, story)
    assert compute.batches == [["first"], ["a", "b", "c"]]


def test_a_cancelled_caller_takes_back_what_has_not_begun() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> None:
        compute.gate.clear()
        begun = asyncio.create_task(batcher.submit(["begun"]))
        while not compute.batches:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(batcher.submit(["never", "ever"]))
        await asyncio.sleep(0)
        begun.cancel()
        waiting.cancel()
        compute.gate.set()
        assert await batcher.submit(["later"]) == [5]

    run(compute, story)
    assert compute.batches == [["begun"], ["later"]]


def test_a_failure_reaches_its_callers_and_ends_nothing() -> None:
    async def story(batcher: RequestBatcher[int]) -> None:
        with pytest.raises(ValueError, match="a bad text"):
            await batcher.submit(["bad", "good"])
        assert await batcher.submit(["good"]) == [4]

    run(Lengths(), story)


def test_a_failure_is_not_that_of_the_others_in_its_batch() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> None:
        submitted = (batcher.submit(texts) for texts in (["good"], ["bad", "b"], ["fine", "a"]))
        first, failed, last = await asyncio.gather(*submitted, return_exceptions=True)
        assert (first, last) == ([4], [4, 1])
        assert str(failed) == "a bad text"

    run(compute, story, max_batch_size=5)
    assert compute.batches == [["good", "bad", "b", "fine", "a"], ["good"], ["bad"], ["b"], ["fine"], ["a"]]


def test_nothing_is_computed_for_callers_who_have_all_gone() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> None:
        gone = asyncio.create_task(batcher.submit(["gone"]))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.1)
        assert await batcher.submit(["here"]) == [4]

    run(compute, story, batch_timeout=0.05)
    assert compute.batches == [["here"]]


def test_no_text_has_no_result() -> None:
    compute = Lengths()

    async def story(batcher: RequestBatcher[int]) -> list[int]:
        return await batcher.submit([])

    assert run(compute, story) == []
    assert compute.batches == []
