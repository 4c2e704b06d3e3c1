"""Analysis of predictions: metrics, intervals, errors, comparison of runs, report page."""
