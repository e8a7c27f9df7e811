"""Grading: from a model's output and a gold answer to right or wrong, without ever running what a model wrote.

extract.py        finds the answer in an output, and says how: answering.py, boxes.py, phrases.py, choices.py,
                  mathematics.py and prose_numbers.py find claims, statements.py and qualifiers.py weigh them
decide.py         compares it by the cheapest tier that can: text, exact numbers, rounded golds, formulas
latex/            reads an answer into a tree
meaning/          compares two trees by what they mean; values are exact or enclosed in balls
workers/          math-verify in killable processes, for what the parser cannot read
second_look.py    what math-verify alone called right
voting.py, canonical.py    which answers vote together
reward.py         as a reward for training
qwen_rules.py     the inflated rules of published numbers
"""

from vllm_rast.grading.canonical import answer_class
from vllm_rast.grading.grader import GRADERS, STATUSES, Grade, GradeItem, Grader
from vllm_rast.grading.reward import answer_reward, compute_score, compute_scores

VERSION = 4  # of the rules: grades of another version are made again; see scripts/record_verdicts.py

__all__ = [
    "GRADERS",
    "STATUSES",
    "VERSION",
    "Grade",
    "GradeItem",
    "Grader",
    "answer_class",
    "answer_reward",
    "compute_score",
    "compute_scores",
]
