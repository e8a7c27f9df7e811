"""Record what the grader's rules decide, so that a change of the rules cannot pass unnoticed.

    python scripts/record_verdicts.py

Writes tests/grading/verdicts.jsonl. Grades in run folders carry grading.VERSION; so this refuses while a verdict
differs from the recorded one and the version is still the same: raise VERSION first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from verdicts import changed, read_verdicts, verdicts_now, write_verdicts  # noqa: E402

from vllm_rast.grading import VERSION  # noqa: E402


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    version, before = read_verdicts()
    now = verdicts_now()
    differing = changed(before, now)
    if differing and version == VERSION:
        print(
            f"error: {len(differing)} verdicts changed; raise VERSION in vllm_rast/grading/__init__.py", file=sys.stderr
        )
        return 2
    write_verdicts(VERSION, now)
    print(f"{sum(map(len, now.values()))} verdicts of version {VERSION} recorded, {len(differing)} of them changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
