"""Write the tiny benchmark, byte for byte the same everywhere: `python scripts/make_benchmark.py [FILE]`."""

import sys
from pathlib import Path

from vllm_rast.tiny.benchmark import jsonl

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "datasets" / "tiny.jsonl"
path.write_bytes(jsonl().encode())
print(path)
