"""tokens.html: one self-contained page on which every token of the read answers can be looked at.

The page needs no network, and its content security policy forbids any request. What a model wrote enters it as text. An
answer's numbers are compressed, and decoded when it is chosen, so hundreds of long answers open at once:

    deflate, then base64, of columns one after the other: the ids as int32, each model's likeliest ids as int32, its
    ranks as uint16 (65,535 and more are 65,535), everything else as int16 in thousandths, or in the parts that the
    page's `scales` name (beyond 32,767 of them cut off; -32,768 is no number)
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.page import script_json
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.tasks.benchmark import Problem

MAX_TOKENS = 1_000_000  # of all answers; a page of so many has about 40 MB
NO_NUMBER = -32_768
SCALES = (1000, 100, 10, 1)
ROOM = "vllm_rast.evaluation.analysis"


def token_page(
    table: TraceTable, problems: Mapping[tuple[str, str], Problem], right: Mapping[Key, bool] | None, title: str
) -> str:
    """The page as HTML. right: which samples are right, if that is known."""
    template = Template(_file("tokens.html"))
    return template.substitute(
        title=escape(title),
        style=_file("tokens.css"),
        script=_file("tokens.js"),
        data=script_json(page_data(table, problems, right or {})),
    )


def page_data(
    table: TraceTable, problems: Mapping[tuple[str, str], Problem], right: Mapping[Key, bool]
) -> dict[str, Any]:
    """What the page's script shows. As many answers as MAX_TOKENS allows, in the table's order."""
    kept = int(np.searchsorted(table.starts[1:], MAX_TOKENS, side="right"))
    end = int(table.starts[kept])
    numbers = [name for name, values in table.columns.items() if values.dtype.kind == "f"]
    ids = [np.unique(table[name][:end]) for name in ("token", *(f"{model}_argmax" for model in table.models))]
    known = np.unique(np.concatenate(ids)).tolist()
    questions = list(dict.fromkeys((key.benchmark, key.problem) for key in table.answers[:kept]))
    place = {question: i for i, question in enumerate(questions)}
    rows = table.rows
    scales = {name: scale_of(name, table[name][:end]) for name in numbers}
    return {
        "models": table.models,
        "numbers": numbers,
        "scales": scales,
        "rows": rows,
        "texts": {token: table.text(token) for token in known},
        "questions": [
            [benchmark, problem, problems[benchmark, problem].question, gold_of(problems[benchmark, problem])]
            for benchmark, problem in questions
        ],
        "left_out": len(table.answers) - kept,
        "answers": [
            {
                "question": place[key.benchmark, key.problem],
                "row": rows.index(key.row),
                "sample": key.sample,
                "right": right.get(key),
                "tokens": int(table.lengths[i]),
                "data": packed(table, slice(int(table.starts[i]), int(table.starts[i + 1])), scales),
            }
            for i, key in enumerate(table.answers[:kept])
        ],
    }


def scale_of(name: str, values: NDArray) -> int:
    """Into how many parts a column's unit is cut. Differences of logits grow with the vocabulary; of probabilities,
    entropies and divergences nothing beyond 32 tells more."""
    if not name.startswith("delta") or "cosine" in name:
        return SCALES[0]
    largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    return next((scale for scale in SCALES if largest * scale < -NO_NUMBER - 1), SCALES[-1])


def packed(table: TraceTable, inside: slice, scales: Mapping[str, int]) -> str:
    """One answer's columns, as the module says."""
    parts = [table["token"][inside].astype("<i4")]
    parts += [table[f"{model}_argmax"][inside].astype("<i4") for model in table.models]
    parts += [np.minimum(table[f"{model}_rank"][inside], 65_535).astype("<u2") for model in table.models]
    parts += [in_parts(table[name][inside], scale) for name, scale in scales.items()]
    compress = zlib.compressobj(9, wbits=-15)
    data = compress.compress(b"".join(part.tobytes() for part in parts)) + compress.flush()
    return base64.b64encode(data).decode()


def in_parts(values: NDArray, scale: int = SCALES[0]) -> NDArray[np.int16]:
    """Numbers in thousandths, or other parts, cut off at what an int16 holds."""
    with np.errstate(invalid="ignore"):
        cut = np.clip(np.rint(values.astype(np.float64) * scale), NO_NUMBER + 1, -NO_NUMBER - 1)
    return np.where(np.isnan(cut), NO_NUMBER, cut).astype("<i2")


def gold_of(problem: Problem) -> str:
    return problem.gold if isinstance(problem.gold, str) else ", ".join(problem.gold)


def _file(name: str) -> str:
    return files(ROOM).joinpath("templates", name).read_text(encoding="utf-8")
