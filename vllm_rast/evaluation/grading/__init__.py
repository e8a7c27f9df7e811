"""Grading: from a model's output and a gold answer to right or wrong, without ever running what a model wrote."""

from vllm_rast.evaluation.grading.classes import answer_class
from vllm_rast.evaluation.grading.grader import GRADERS, STATUSES, Grade, GradeItem, Grader

VERSION = 1  # of the rules: grades made by another version are stale

__all__ = ["GRADERS", "STATUSES", "VERSION", "Grade", "GradeItem", "Grader", "answer_class"]
