"""This machine, divided among several engines: GPUs, or CPU cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from vllm_rast.engine.launch import ENGINES_HERE
from vllm_rast.errors import UserError

OPTION = "--data-parallel-size"
TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


@dataclass(frozen=True)
class Place:
    """What one engine gets: CPU cores, or all if none are named, and environment variables, which may name GPUs."""

    cores: frozenset[int] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A process that is started in this context has the place. Cores are of a thread, so other ones keep theirs."""
        with patch.dict(os.environ, self.environment):
            if not self.cores:
                yield
                return
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self.cores)
            try:
                yield
            finally:
                os.sched_setaffinity(0, before)


def divided(engines: int, ranks: int, gpus: tuple[str, list[str]] | None) -> list[Place]:
    """A place for each engine, which has so many ranks. gpus: see `vllm_rast.engine.platform.gpus`.

    Raises UserError if there are not enough GPUs or cores.
    """
    neighbours = [] if gpus else sorted(cores(), key=position)
    there = len(gpus[1] if gpus else neighbours)
    if engines * ranks > there:
        what = ("GPU" if gpus else "CPU core") + ("s" if ranks > 1 else "")
        lower = f"{OPTION} or --tensor-parallel-size" if ranks > 1 else OPTION
        raise UserError(
            f"{OPTION} {engines}: {engines} engines of {ranks} {what} each need {engines * ranks}, and there are "
            f"{there}; lower {lower}"
        )
    if gpus is None:
        return divided_cores(neighbours, engines)
    variable, names = gpus
    shares = [names[first : first + ranks] for first in range(0, engines * ranks, ranks)]
    return [Place(environment={variable: ",".join(share)}) for share in shares]


def divided_cores(there: list[int], engines: int) -> list[Place]:
    """Cores that are neighbours, as many for each engine, and an equal share of the memory."""
    share = len(there) // engines
    environment = {ENGINES_HERE: str(engines)}
    return [Place(frozenset(there[number * share :][:share]), environment) for number in range(engines)]


def cores() -> set[int]:
    """The CPU cores that this process may use."""
    return set(os.sched_getaffinity(0))


def position(core: int) -> tuple[int, int, int]:
    """Where a core is: threads of one core, and cores of one socket, stand together."""
    folder = Path(TOPOLOGY.format(core))
    try:
        socket, physical = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        return 0, core, core
    return socket, physical, core
