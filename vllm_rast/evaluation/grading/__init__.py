"""Grading: from a model's output and a gold answer to right or wrong, without ever running what a model wrote."""

from vllm_rast.evaluation.grading.classes import answer_class
from vllm_rast.evaluation.grading.grader import Grade, GradeItem, Grader

__all__ = ["Grade", "GradeItem", "Grader", "answer_class"]
