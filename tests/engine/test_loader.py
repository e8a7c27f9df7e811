"""Loading: what is in memory already is hidden from the garbage collector, and only that."""

from __future__ import annotations

import gc
import weakref

import pytest

from vllm_rast.engine.loader import frozen_heap


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thaw() -> None:
    gc.unfreeze()


def test_what_was_there_is_not_looked_at_again() -> None:
    garbage = weakref.ref(Ring())
    with frozen_heap():
        assert garbage() is None, "an earlier engine would keep its memory"
        assert gc.get_freeze_count() > len(gc.get_objects())
        new = weakref.ref(Ring())
        gc.collect()
        assert new() is None
    assert gc.get_freeze_count() > 0, "vLLM's start goes on collecting"


def test_nothing_is_kept_if_loading_fails() -> None:
    with pytest.raises(MemoryError), frozen_heap():
        raise MemoryError
    assert gc.get_freeze_count() == 0
