"""Scores to insight: metrics, intervals, errors, comparison of runs, the report page."""
