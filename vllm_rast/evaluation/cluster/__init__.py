"""Runs and grading on a Ray cluster. Only this room imports Ray, which is an extra of the package."""
