"""Models of realistic shape and random weights, made on the spot: what the benchmarks decode.

    python scripts/bench/common/models.py --models qwen2-0.5b,qwen2-91m,qwen2-91m --folder MODELS

writes a base and its positive and negative model (a Hugging Face folder each, safetensors, no tokenizer: engines start
with skip_tokenizer_init) and prints their folders. Nothing is downloaded. How long a forward pass takes depends on a
model's shape, not on what it has learnt; what an answer says depends on chance, so benchmarks fix the answers' lengths.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPREAD = 0.02  # standard deviation of all matrices, Qwen2's own initializer_range
RECIPE = "benchmark.json"  # written last into a finished folder: from what it was made


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model. Heads are 64 wide unless said otherwise; input and output embeddings are one matrix."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_width: int
    vocab: int
    head_width: int = 64
    context: int = 4096

    @property
    def parameters(self) -> int:
        """Weights without norms and biases, the shared embedding counted once."""
        attention = self.width * self.head_width * 2 * (self.heads + self.kv_heads)
        return self.vocab * self.width + self.layers * (attention + 3 * self.width * self.mlp_width)


SHAPES = {
    "qwen2-0.5b": Shape(896, 24, 14, 2, 4864, 151_936),  # Qwen2.5-0.5B's
    "qwen2-390m": Shape(896, 24, 14, 2, 4864, 32_768),  # the same with fewer rows, so that layers cost most of it
    "qwen2-164m": Shape(896, 10, 14, 2, 4864, 16_384),  # and fewer layers, for machines with little memory
    "qwen2-91m": Shape(512, 4, 8, 2, 1792, 151_936),
    "qwen2-39m": Shape(512, 8, 8, 2, 1408, 32_768),  # for machines with few cores
    "qwen2-11m": Shape(256, 4, 4, 2, 704, 32_768),
    "qwen2-tiny": Shape(128, 2, 2, 1, 256, 1_024),  # to try a script out
}


def make_model(shape_name: str, folder: str | Path, *, seed: int = 0, dtype: str = "bfloat16") -> Path:
    """The folder of a model of that shape inside `folder`, made unless it is there already.

    Equal arguments give equal weights. Raises SystemExit, naming the shapes, for one that is unknown.
    """
    if shape_name not in SHAPES:
        sys.exit(f"--models: there is no shape {shape_name!r}; choose from {', '.join(SHAPES)}")
    recipe = {"shape": asdict(SHAPES[shape_name]), "seed": seed, "dtype": dtype, "spread": SPREAD}
    place = Path(folder) / f"{shape_name}-{dtype}-{seed}"
    if (place / RECIPE).exists() and json.loads((place / RECIPE).read_text()) == recipe:
        return place
    # Made beside its place and moved there whole: a run that was cut off leaves nothing that looks finished.
    unfinished = place.with_name(f"{place.name}.{os.getpid()}")
    unfinished.mkdir(parents=True, exist_ok=True)
    write_model(SHAPES[shape_name], unfinished, seed, dtype)
    (unfinished / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n")
    shutil.rmtree(place, ignore_errors=True)
    unfinished.rename(place)
    return place


def make_models(shape_names: Sequence[str], folder: str | Path, *, dtype: str = "bfloat16") -> list[Path]:
    """A folder for each of the shapes: a base, then its small models. Each has weights of its own (seeds 0, 1, 2)."""
    return [make_model(name, folder, seed=seed, dtype=dtype) for seed, name in enumerate(shape_names)]


def qwen2_config(shape: Shape, **more: Any) -> Any:
    """transformers' configuration of a Qwen2 model with tied embeddings."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        **more,
    )


def write_model(shape: Shape, folder: Path, seed: int, dtype: str) -> None:
    """Config and weights. The tensors are drawn one after the other, so that no model ever stands in memory twice."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2ForCausalLM

    config = qwen2_config(shape, dtype=dtype, architectures=["Qwen2ForCausalLM"])
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    for name, parameter in model.named_parameters():  # shared ones once
        tensor = torch.zeros(parameter.shape) if name.endswith("bias") else torch.ones(parameter.shape)
        if parameter.ndim > 1:
            tensor.normal_(0.0, SPREAD, generator=generator)
        tensors[name] = tensor.to(getattr(torch, dtype))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)


def shape_list(text: str) -> list[str]:
    """`--models`: shapes between commas, the base's first. Raises argparse's error for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SHAPES:
            raise argparse.ArgumentTypeError(f"there is no shape {name!r}; choose from {', '.join(SHAPES)}")
    return names


def mix_shapes(text: str) -> list[str]:
    """The same for a base, a positive and a negative model."""
    names = shape_list(text)
    if len(names) != 3:
        raise argparse.ArgumentTypeError("give three shapes, BASE,POSITIVE,NEGATIVE")
    return names


def add_mix(parser: argparse.ArgumentParser) -> None:
    """`--models` of the benchmarks that decode one mix."""
    parser.add_argument(
        "--models",
        type=mix_shapes,
        default=["qwen2-0.5b", "qwen2-91m", "qwen2-91m"],
        metavar="BASE,POSITIVE,NEGATIVE",
        help="shapes (default: qwen2-0.5b,qwen2-91m,qwen2-91m)",
    )


def describe_shapes() -> str:
    """The shapes as a list for --help."""
    return "\n".join(
        f"  {name:<12} {shape.parameters / 1e6:6.1f} M parameters, {shape.width} wide, {shape.layers} layers, "
        f"{shape.vocab:,} vocabulary rows"
        for name, shape in SHAPES.items()
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes:\n{describe_shapes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=shape_list, required=True, metavar="BASE,SMALL,...", help="shapes, see above")
    parser.add_argument("--folder", type=Path, required=True, help="where to; what is there already is kept")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    return parser.parse_args()


def main() -> None:
    options = parse()
    for place in make_models(options.models, options.folder, dtype=options.dtype):
        print(place)


if __name__ == "__main__":
    main()
