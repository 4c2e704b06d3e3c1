"""Beyond one F1: intervals, kinds of error, other readings of the same predictions, and where the errors are."""
