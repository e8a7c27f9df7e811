"""Grade a file of one's own: JSON lines with a gold and a prediction. The command line does the same:

vllm-rast grade --pairs FILE
"""

import json
import sys
from collections import Counter
from pathlib import Path

from vllm_rast.grading import GradeItem, Grader

PAIRS = [
    {"gold": "\\frac{1}{2}", "prediction": "So the probability is $\\boxed{0.5}$."},
    {"gold": "18", "prediction": "<think>\\boxed{17}? No.</think>The answer is 18, as shown above."},
    {"gold": "5 \\text{ cm}", "prediction": "\\boxed{5 \\text{ m}}"},
    {"gold": "7", "prediction": "The answer is not 5, it is 7."},
    {"gold": "5", "prediction": "The answer is 5 or 6."},
]


def main() -> None:
    pairs = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()] if sys.argv[1:] else PAIRS
    counts: Counter[str] = Counter()
    with Grader() as grader:
        items = [GradeItem(pair["prediction"], pair["gold"]) for pair in pairs]
        for pair, grade in zip(pairs, grader.grade_many(items), strict=True):
            counts["right" if grade.correct else "wrong"] += 1
            print(f"{'right' if grade.correct else 'wrong'}: {grade.answer!r} for {pair['gold']!r} ({grade.how})")
    print(dict(counts))


if __name__ == "__main__":
    main()
