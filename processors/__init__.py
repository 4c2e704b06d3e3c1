"""From text to tensors: readers, tasks, word cutting, alignment, windows, feature cache and batching."""

from processors.examples import DataError, Example
from processors.features.build import convert_examples_to_features

__all__ = ["DataError", "Example", "convert_examples_to_features"]
