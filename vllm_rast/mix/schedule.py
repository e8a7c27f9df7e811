"""Weights as a function of the generated position: what every form of alpha is turned into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vllm_rast.mix.gate import Gate

# A point is one line of float32: START, LENGTH, the weights of all models, their rise. Only this file knows more of it
# than the functions below say.
START, LENGTH = 0, 1
WEIGHTS = 2  # where the weights begin


def num_columns(num_models: int) -> int:
    return WEIGHTS + 2 * num_models


def weights_of(points: Any) -> Any:
    """The weights at the beginning of each point, [..., num_models], of a numpy array or a tensor of lines."""
    return points[..., WEIGHTS : WEIGHTS + (points.shape[-1] - WEIGHTS) // 2]


def rises_of(points: Any) -> Any:
    """How much the weights change over the length of each point, [..., num_models]."""
    return points[..., WEIGHTS + (points.shape[-1] - WEIGHTS) // 2 :]


@dataclass(frozen=True)
class Schedule:
    """The weights of one request at every generated position; a constant alpha is a schedule of one point.

    positions: where a point begins, [num_points], increasing; 0 is the first generated token, and the first point's.
    rows: the weights from there on, [num_points, num_models], in the order of `RastConfig.sources`.
    linear: between two points the weights run straight from one to the next, instead of staying until it.
    gate: on which tokens the weights act; None: on all.

    Float32 everywhere: a weight that float32 calls 0 is 0, and models that it belongs to are not used.
    """

    positions: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]
    linear: bool = False
    gate: Gate | None = None

    @property
    def used(self) -> tuple[bool, ...]:
        """Which models have a weight other than 0 anywhere, [num_models]."""
        return models_used(self.points())

    def points(self, num_prompt_tokens: int = 1) -> np.ndarray:
        """One line for each point in float32, [num_points, num_columns(num_models)].

        The start is the place in prompt and answer of the token whose logits choose the point's first token:
        num_prompt_tokens - 1 + position. By default that is the generated position itself. The rise is the weights'
        difference over the length; a last point, and every point of a schedule that is not linear, has none.
        """
        import numpy as np

        rows = np.array(self.rows, dtype=np.float32)
        count, num_models = rows.shape
        points = np.zeros((count, num_columns(num_models)), dtype=np.float32)
        points[:, START] = np.array(self.positions) + (num_prompt_tokens - 1)
        points[:, LENGTH] = 1
        weights_of(points)[:] = rows
        if self.linear:
            points[:-1, LENGTH] = np.diff(self.positions)
            rises_of(points)[:-1] = np.diff(rows, axis=0)
        return points

    def rows_at(self, generated: np.ndarray) -> np.ndarray:
        """The float32 weights at generated positions, [n] integers of 0 or more: [n, num_models]."""
        import numpy as np

        points = self.points()
        chosen = points[np.searchsorted(self.positions, generated, side="right") - 1]
        return weights_after(chosen, np.asarray(generated, dtype=np.float32)[:, None])


def models_used(points: np.ndarray) -> tuple[bool, ...]:
    """Which models have a weight other than 0 in any of the lines of `Schedule.points`, [num_models].

    A straight line between two points is 0 if both of its ends are.
    """
    return tuple((weights_of(points) != 0).any(axis=0).tolist())


def weights_after(points: Any, places: Any) -> Any:
    """The one formula of the weights, for numpy arrays and torch tensors alike: [n, num_models].

    points: the line of `Schedule.points` that each place lies in, [n, num_columns] in float32. places: [n, 1]
    in float32, counted as the points' starts are; a place before its point counts as its start. Sum, product and
    quotient are one rounding each, so numpy and torch agree to the last bit on every device.
    """
    start, length = points[:, START : START + 1], points[:, LENGTH : LENGTH + 1]
    return weights_of(points) + rises_of(points) * ((places - start).clip(min=0) / length)
