"""Comparing variants: trainings side by side, and what their results show."""
