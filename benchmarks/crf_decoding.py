"""Count the long rows that decoding in float32 answers otherwise than decoding in float64.

    python -m benchmarks.crf_decoding       # 1,920 rows in batches of (64, 512, 9) and (64, 512, 64)
    TRITON_INTERPRET=1 python -m benchmarks.crf_decoding --backend triton --rows 16    # interpreted: 15 s a row
    python -m benchmarks.crf_decoding --legal --rows 640    # --decode viterbi against a Viterbi in plain Python

Scores are random, and all rows have all words. The reference is a plain search in float64, which shares no code with
the layer. Prints for each backend the rows that differ, and how much less its paths score than the best at most.

With ``--legal``, rows have 1 to 64 words, transitions are zero, and only those of BIO are legal; times are the best of
three.
"""

import argparse
import contextlib
import math
import time
import timeit
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.export import Dim

from common.tag_schemes import MARKUPS, tag_set
from common.transition_biases import KINDS
from models.crf import CRF
from models.crf.backend import use_backend
from models.heads.transitions import fixed_crf

ROWS_OF_A_BATCH, WORDS = 64, 512
BACKENDS = ("cpp", "torch", "graph", "triton")


def best_paths_in_float64(crf: CRF, emissions: Tensor) -> Tensor:
    """The best path of each row (B, W), by back-pointers."""
    start, end, scores = crf.start_transitions.double(), crf.end_transitions.double(), crf.transitions.double()
    best = start + emissions[:, 0].double()  # (B, C)
    origins = []
    for word in emissions[:, 1:].double().unbind(1):
        arriving, origin = (best[:, :, None] + scores).max(1)  # (B, C)
        best = arriving + word
        origins.append(origin)
    tag = (best + end).argmax(1)  # (B,)
    path = [tag]
    for origin in reversed(origins):
        tag = origin.gather(1, tag[:, None])[:, 0]
        path.append(tag)
    return torch.stack(path[::-1], 1)


def path_score(crf: CRF, emissions: Tensor, path: Tensor) -> Tensor:
    """The score of each row's path in float64: (B,)."""
    moves = crf.transitions.double()[path[:, :-1], path[:, 1:]].sum(1)
    ends = crf.start_transitions.double()[path[:, 0]] + crf.end_transitions.double()[path[:, -1]]
    return emissions.double().gather(2, path[:, :, None]).sum((1, 2)) + moves + ends


class Searching(nn.Module):
    """What is exported."""

    def __init__(self, crf: CRF) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, emissions: Tensor) -> Tensor:
        return self.crf.best_paths(emissions).tags


def search_of(backend: str, crf: CRF) -> Callable[[Tensor], Tensor]:
    if backend != "graph":
        return lambda emissions: crf.best_paths(emissions).tags
    example = torch.zeros(2, 5, crf.num_tags)
    exported = torch.export.export(Searching(crf), (example,), dynamic_shapes=({0: Dim("rows"), 1: Dim("words")},))
    return exported.module()


@torch.no_grad()
def compare(backend: str, num_tags: int, rows: int) -> None:
    """Print how a backend's paths differ from those of float64."""
    torch.manual_seed(num_tags)
    crf = CRF(num_tags, batch_first=True)
    search = search_of(backend, crf)
    different, lost, taken = 0, 0.0, 0.0
    for begin in range(0, rows, ROWS_OF_A_BATCH):
        emissions = torch.randn(min(ROWS_OF_A_BATCH, rows - begin), WORDS, num_tags)
        expected = best_paths_in_float64(crf, emissions)
        since = time.perf_counter()
        with use_backend(backend) if backend != "graph" else contextlib.nullcontext():
            found = search(emissions)
        taken += time.perf_counter() - since
        different += int((found != expected).any(1).sum())
        gap = path_score(crf, emissions, expected) - path_score(crf, emissions, found)
        lost = max(lost, gap.max().item())
    print(f"| {backend} | {num_tags} | {rows} | {different} | {lost:.0e} | {taken:.1f} s |", flush=True)


def best_path_in_python(emissions: list[list[float]], legal: list[list[bool]]) -> list[int]:
    """The best legal path of a row, as scripts around token classifiers search it: three loops over lists."""
    C = len(emissions[0])
    best = [score if legal[C][tag] else -math.inf for tag, score in enumerate(emissions[0])]
    origins = []
    for scores in emissions[1:]:
        reached, origin = [], []
        for tag in range(C):
            highest, before = -math.inf, 0
            for previous in range(C):
                if legal[previous][tag] and best[previous] > highest:
                    highest, before = best[previous], previous
            reached.append(highest + scores[tag])
            origin.append(before)
        best = reached
        origins.append(origin)
    path = [max(range(C), key=lambda tag: best[tag] if legal[tag][C + 1] else -math.inf)]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return path[::-1]


@torch.no_grad()
def compare_legal(num_types: int, rows: int) -> None:
    """Print the speed of the layer and of plain Python, and the rows that differ."""
    torch.manual_seed(num_types)
    tags = tuple(tag_set([f"T{index}" for index in range(num_types)], MARKUPS["bio"]))
    crf = fixed_crf(tags, "bio", (0.0,) * len(KINDS), torch.device("cpu"))
    assert crf.legal is not None
    legal, lengths = crf.legal.tolist(), torch.randint(1, 65, (rows,)).sort().values  # as in prediction
    emissions = torch.randn(rows, 64, len(tags))
    batches = [
        (emissions[begin : begin + ROWS_OF_A_BATCH], lengths[begin : begin + ROWS_OF_A_BATCH])
        for begin in range(0, rows, ROWS_OF_A_BATCH)
    ]
    masks = [torch.arange(64) < counts[:, None] for _, counts in batches]

    def ours() -> list[list[int]]:
        return [path for (scores, _), mask in zip(batches, masks, strict=True) for path in crf.decode(scores, mask)]

    def plain() -> list[list[int]]:
        return [
            best_path_in_python(row[:words].tolist(), legal)
            for scores, counts in batches
            for row, words in zip(scores, counts.tolist(), strict=True)
        ]

    words, different = int(lengths.sum()), sum(a != b for a, b in zip(ours(), plain(), strict=True))
    speeds = [words / min(timeit.repeat(search, number=1, repeat=3)) for search in (ours, plain)]
    figures = " | ".join(f"{speed:,.0f}" for speed in speeds)
    print(f"| {len(tags)} | {rows} | {different} | {figures} | {speeds[0] / speeds[1]:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="default: cpp, torch and graph")
    parser.add_argument("--rows", type=int, default=1920)
    parser.add_argument("--tags", type=int, action="append", help="default: 9 and 64; with --legal: 4 and 18")
    parser.add_argument("--legal", action="store_true", help="speed of --decode viterbi, for --tags entity types")
    args = parser.parse_args()
    if args.legal:
        print("| tags | rows | differ | words/s | words/s in plain Python | ratio |")
        print("|---|---|---|---|---|---|")
        for num_types in args.tags or (4, 18):
            compare_legal(num_types, args.rows)
        return
    print("| backend | tags | rows | differ | score lost | time |")
    print("|---|---|---|---|---|---|")
    for backend in args.backend or BACKENDS[:3]:
        for num_tags in args.tags or (9, 64):
            compare(backend, num_tags, args.rows)


if __name__ == "__main__":
    main()
