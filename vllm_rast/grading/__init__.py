"""Grading: from a model's output and a gold answer to right or wrong, without ever running what a model wrote.

extract.py   finds the answer in the output, and says how
decide.py    compares it by the cheapest tier that can: text, exact numbers, rounded golds, formulas
clean.py, tokens.py, parse.py       read an answer into a tree
compare.py, regions.py, units.py, words.py, names.py    compare two trees by what they mean
values.py    values of formulas: exact, or to 50 digits, of bounded size
pool.py, worker.py    math-verify in killable processes, for what the parser cannot read
classes.py   one string for all spellings of an answer, for majority votes
lineage.py   the inflated rules of published numbers
"""

from vllm_rast.grading.canonical import answer_class
from vllm_rast.grading.grader import GRADERS, STATUSES, Grade, GradeItem, Grader

VERSION = 1  # of the rules: grades made by another version are stale

__all__ = ["GRADERS", "STATUSES", "VERSION", "Grade", "GradeItem", "Grader", "answer_class"]
