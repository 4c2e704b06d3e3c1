"""A run on one page: ``python -m tools.report outputs/run``."""
