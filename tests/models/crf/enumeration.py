"""Everything a linear-chain CRF computes, by writing down all paths: slow, short and plainly right."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Problem:
    """A batch and parameters, rows first, in float64."""

    emissions: Tensor  # (B, W, C)
    start: Tensor  # (C,)
    end: Tensor  # (C,)
    transitions: Tensor  # (C, C)
    mask: Tensor  # (B, W) bool
    legal: Tensor  # (C + 2, C + 2) bool
    allowed: Tensor  # (B, W, C) bool
    tags: Tensor  # (B, W), -100 where masked

    def words(self, row: int) -> list[int]:
        return self.mask[row].nonzero().flatten().tolist()

    def score(self, row: int, path: tuple[int, ...]) -> float:
        """The score of a path over a row's words; -inf if it is not legal."""
        C = self.start.numel()
        words = self.words(row)
        if not words:
            return 0.0
        legal = [bool(self.legal[C, path[0]]), bool(self.legal[path[-1], C + 1])]
        legal += [bool(self.legal[i, j]) for i, j in itertools.pairwise(path)]
        if not all(legal):
            return -math.inf
        score = float(self.start[path[0]] + self.end[path[-1]])
        score += sum(float(self.emissions[row, word, tag]) for word, tag in zip(words, path, strict=True))
        return score + sum(float(self.transitions[i, j]) for i, j in itertools.pairwise(path))

    def paths(self, row: int, allowed: Tensor | None = None) -> dict[tuple[int, ...], float]:
        """All paths of a row whose score is not -inf, and whose tags are allowed."""
        C = self.start.numel()
        choices = [[tag for tag in range(C) if allowed is None or allowed[row, word, tag]] for word in self.words(row)]
        scores = {path: self.score(row, path) for path in itertools.product(*choices)}
        return {path: score for path, score in scores.items() if score > -math.inf}

    def log_partition(self, row: int, allowed: Tensor | None = None) -> float:
        return _log_sum(self.paths(row, allowed).values())

    def probabilities(self, row: int, allowed: Tensor | None = None) -> dict[tuple[int, ...], float]:
        paths = self.paths(row, allowed)
        total = _log_sum(paths.values())
        return {path: math.exp(score - total) for path, score in paths.items()}

    def marginals(self, row: int, allowed: Tensor | None = None) -> Tensor:
        """(W, C)"""
        result = torch.zeros(self.emissions.shape[1:], dtype=torch.float64)
        for path, probability in self.probabilities(row, allowed).items():
            for word, tag in zip(self.words(row), path, strict=True):
                result[word, tag] += probability
        return result

    def pairs(self, row: int) -> Tensor:
        """(W, C, C)"""
        _, W, C = self.emissions.shape
        result = torch.zeros(W, C, C, dtype=torch.float64)
        for path, probability in self.probabilities(row).items():
            for word, pair in zip(self.words(row)[:-1], itertools.pairwise(path), strict=True):
                result[word][pair] += probability
        return result


def _log_sum(scores: Iterable[float]) -> float:
    known = torch.tensor(list(scores), dtype=torch.float64)
    return float(known.logsumexp(0)) if len(known) else -math.inf
