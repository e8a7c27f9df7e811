"""`vllm-rast recipes`: what can be decoded with one option, and the memory that it takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError

FOLDER = Path(__file__).parents[2] / "eval" / "recipes"  # in a checkout
GIB = 1 << 30
OTHERS = 75  # characters of the table beside the mix
BYTES = {"float32": 4}  # of a weight; everything else is two


@dataclass(frozen=True)
class Needs:
    """What a recipe's engine takes, over all of its GPUs together, in bytes; None if a model's shape is not known.

    weights: of all models, each once. kv_token: keys and values of a token in all of them. kv_request: of one request
    of max-model-len. gpus: tensor-parallel-size.
    """

    name: str
    mix: str
    weights: int | None
    kv_token: int | None
    kv_request: int | None
    gpus: int


def add_arguments(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "recipes",
        help="list the recipes and the memory they take",
        description="List recipes (files for `generate --recipe`), their mixes, and the memory that these take over all"
        " GPUs: weights, keys and values of a token and of a request of max-model-len, and both on each GPU. It is"
        " computed from the models' configurations; layers with a window count in full, and nothing is downloaded.",
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: eval/recipes of a checkout")
    parser.add_argument("--json", action="store_true", help="print one JSON object per recipe instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    folder = Path(args.folder) if args.folder else FOLDER
    found = list(recipes(folder))
    if not found:
        raise UserError(f"recipes {folder}: no recipes; name a folder of YAML files, or use a checkout's eval/recipes")
    if args.json:
        for needs in found:
            print(json.dumps(asdict(needs), ensure_ascii=False))
        return 0
    from rich.console import Console

    console = Console()
    console.print(table(found, console.width - OTHERS))
    return 0


def recipes(folder: Path) -> Iterator[Needs]:
    """Every recipe of a folder that names models, by name."""
    from vllm_rast.evaluation.tasks.text import load_yaml

    for path in sorted(folder.glob("*.yaml")):
        said = load_yaml(path, "--recipe")
        if isinstance(said, dict) and isinstance(said.get("model"), str):
            yield needs_of(path.stem, said)


def needs_of(name: str, said: dict[str, Any]) -> Needs:
    from vllm_rast.evaluation.tasks.rows import formula
    from vllm_rast.mix.config import ModelPair, RastConfig
    from vllm_rast.mix.shape import shape_of

    engine = said.get("engine") or {}
    alpha = said.get("alpha", 1.0)
    pairs = [ModelPair.parse(f"{pair},{alpha}" if pair.count(",") == 1 else pair) for pair in said.get("pair") or ()]
    models = RastConfig.build(said["model"], said.get("positive"), said.get("negative"), pairs=pairs)
    shapes = [shape for shape in map(shape_of, models.sources) if shape is not None]
    known = len(shapes) == len(models.sources)
    size = BYTES.get(str(engine.get("dtype")), 2)
    kv_token = size * sum(shape.kv_values for shape in shapes) if known else None
    length = engine.get("max-model-len")
    return Needs(
        name=name,
        mix=formula(models, list(models.alphas) if models.pairs else "base"),
        weights=size * sum(shape.parameters for shape in shapes) if known else None,
        kv_token=kv_token,
        kv_request=kv_token * length if kv_token is not None and isinstance(length, int) else None,
        gpus=engine.get("tensor-parallel-size", 1),
    )


def table(found: list[Needs], width: int) -> Any:
    from rich.table import Table

    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("recipe", no_wrap=True)
    for column in ("weights", "KV/token", "a request", "GPUs", "each"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("mix", no_wrap=True, overflow="ellipsis", max_width=max(width, 12))
    for needs in found:
        each = None if needs.weights is None else (needs.weights + (needs.kv_request or 0)) / needs.gpus
        kib = "?" if needs.kv_token is None else f"{needs.kv_token / 1024:.0f} KiB"
        sizes = [size(needs.weights), kib, size(needs.kv_request), str(needs.gpus), size(each)]
        shown.add_row(needs.name, *sizes, needs.mix)
    return shown


def size(count: float | None) -> str:
    return "?" if count is None else f"{count / GIB:.1f} GiB"
