"""Evaluation: benchmarks, prompts, grading, metrics, runs and reports."""
