"""Compare scored runs: mean and standard deviation over seeds, and significance tests between variants.

python -m analysis.compare_runs outputs/crf_seed1 outputs/crf_seed2 outputs/softmax_seed1 outputs/softmax_seed2
python -m analysis.compare_runs "outputs/cner_*_seed*" --split test --latex --plot outputs/cner.pdf
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.documents import (
    batches,
    central_interval,
    count_entities,
    digest_of,
    precision_recall_f1,
    read_documents,
    resampled_sums,
)
from common.command_line import Bounds, CommandLine
from common.log import console, console_table
from common.run_files import RunFolder

SCORES = ("precision", "recall", "f1")
_SEED_SUFFIX = re.compile(r"[-_.]?seed[-_]?\d+$")

Counts = NDArray[np.float64]
_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"\\{character}" for character in "_%&#${}"}
)


@dataclass
class Variant:
    """Runs that differ only in their seed.

    Args:
        name: folder name without the seed.
        counts: ``(S, D, 3)`` number of correct, predicted and gold entities, by run and document.
    """

    name: str
    counts: NDArray[np.int64]

    def scores(self, score: str) -> NDArray[np.float64]:
        """Scores of the runs, ``(S,)``."""
        return precision_recall_f1(self.counts.sum(1))[:, SCORES.index(score)]

    @property
    def mean_counts(self) -> NDArray[np.float64]:
        """Counts per document, averaged over runs, ``(D, 3)``."""
        return self.counts.mean(0)


def expand_patterns(patterns: Iterable[str]) -> list[Path]:
    """Expand glob patterns to folders, without duplicates.

    Raises:
        ValueError: a pattern matches no folder.
    """
    folders: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        start = Path(path.anchor)
        matches = [path] if path.is_dir() else sorted(start.glob(str(path.relative_to(start))))
        found = [match for match in matches if match.is_dir()]
        if not found:
            raise ValueError(f"{pattern}: no such folder")
        folders |= dict.fromkeys(found)
    return list(folders)


def load_variants(folders: Sequence[Path], split: str) -> list[Variant]:
    """Read the counts of all runs; variants are in order of their first folder.

    Raises:
        ValueError: a run was not scored, or not on the same documents as the others.
    """
    groups: defaultdict[Path, list[NDArray[np.int64]]] = defaultdict(list)
    digests: dict[str, Path] = {}
    for folder in folders:
        documents = read_documents(_scored_file(folder, split))
        digests.setdefault(digest_of(documents), folder)
        groups[variant_of(folder)].append(count_entities(documents))
        if len(digests) > 1:
            first, other = digests.values()
            raise ValueError(f"{first} and {other} were scored on different documents; score both on the same data")
    names = [variant.name for variant in groups]
    return [
        Variant(path.name if names.count(path.name) == 1 else str(path), np.stack(counts))
        for path, counts in groups.items()
    ]


def _scored_file(folder: Path, split: str) -> Path:
    path = RunFolder(folder).documents(split)
    if not path.is_file():
        advice = f"score the run first, with {'--do_eval' if split == 'dev' else '--do_predict'}"
        others = [f"--split {other}" for other in ("dev", "test") if RunFolder(folder).documents(other).is_file()]
        raise ValueError(f"{folder} has no {path.name}; {' or '.join([advice, *others])}")
    return path


def variant_of(folder: Path) -> Path:
    """Path without its seed: ``outputs/crf`` for ``outputs/crf_seed3`` and ``outputs/crf/seed3``."""
    name = _SEED_SUFFIX.sub("", folder.name)
    return folder.with_name(name) if name else folder.parent


@dataclass
class Difference:
    """Difference in score between two variants, ``first - second``.

    Args:
        value: difference of the scores over the documents of all runs.
        low, high: 95 % interval from a paired bootstrap over documents.
        p: p value of a paired permutation test.
        adjusted_p: p value after Holm's correction for all differences that are tested together.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    adjusted_p: float


def compare(
    variants: Sequence[Variant], score: str, resamples: int, seed: int, baseline: str | None = None
) -> list[Difference]:
    """Compare all pairs of variants, or all variants with the baseline."""
    pairs = [pair for pair in combinations(variants, 2) if baseline in (None, pair[0].name, pair[1].name)]
    pairs = [(one, other) if other.name == baseline else (other, one) for one, other in pairs]
    column = SCORES.index(score)
    tests = [permutation_test(one.mean_counts, other.mean_counts, column, resamples, seed) for one, other in pairs]
    differences = []
    for (first, second), p, adjusted in zip(pairs, tests, holm(tests), strict=True):
        both = np.hstack([first.mean_counts, second.mean_counts])
        value = float(_difference(both.sum(0), column))
        low, high = central_interval(_difference(resampled_sums(both, resamples, seed), column)).tolist()
        differences.append(Difference(first.name, second.name, value, low, high, p, adjusted))
    return differences


def permutation_test(first: Counts, second: Counts, column: int, resamples: int, seed: int) -> float:
    """Two-sided p value of the difference when the results of each document are swapped at random.

    Approximate randomisation (Noreen 1989; Yeh 2000), with the estimate of Phipson and Smyth (2010), which is never
    zero. Documents with equal pairs of results are swapped together, with one binomial draw.

    Args:
        first, second: ``(D, 3)`` counts of two variants.
        column: index into ``SCORES``.
    """
    both = np.hstack([first, second])
    observed = abs(_difference(both.sum(0), column))
    kinds, sizes = np.unique(both[(first != second).any(1)], axis=0, return_counts=True)  # (K, 6), (K,)
    change = np.hstack([kinds[:, 3:], kinds[:, :3]]) - kinds  # effect of swapping one document, (K, 6)
    generator = np.random.default_rng(seed)
    as_far = 0
    for some in batches(resamples, max(1, len(kinds))):
        swapped = generator.binomial(sizes, 0.5, (some, len(sizes)))  # (R, K)
        tossed = _difference(both.sum(0) + swapped @ change, column)
        as_far += int((abs(tossed) >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + resamples)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p values to control the family-wise error rate (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _difference(sums: Counts, column: int) -> NDArray[np.float64]:
    """Difference in score from the sums of two variants: ``(..., 6) -> (...)``."""
    return precision_recall_f1(sums[..., :3])[..., column] - precision_recall_f1(sums[..., 3:])[..., column]


class Sheet(NamedTuple):
    """A table as text; the first ``names`` columns hold names, the others numbers."""

    title: str
    names: int
    columns: list[str]
    rows: list[list[str]]


def variant_interval(variant: Variant, score: str, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval over documents of the score of all runs."""
    sums = resampled_sums(variant.mean_counts, resamples, seed)
    low, high = central_interval(precision_recall_f1(sums)[:, SCORES.index(score)]).tolist()
    return low, high


def variant_sheet(variants: Sequence[Variant], score: str, resamples: int, seed: int) -> Sheet:
    """Table of means and standard deviations over seeds, in percent."""
    rows = []
    for variant in variants:
        scores = 100 * variant.scores(score)
        deviation = f"{scores.std(ddof=1):.2f}" if len(scores) > 1 else "-"
        low, high = variant_interval(variant, score, resamples, seed)
        interval = f"{100 * low:.1f}-{100 * high:.1f}"
        rows.append([variant.name, str(len(scores)), f"{scores.mean():.2f}", deviation, interval])
    documents = variants[0].counts.shape[1]
    return Sheet(
        f"{score} on {documents} documents", 1, ["variant", "runs", "mean", "deviation", "95 % interval"], rows
    )


def difference_sheet(differences: Sequence[Difference]) -> Sheet:
    """Table of differences, in percentage points."""
    rows = []
    for one in differences:
        value, interval = f"{100 * one.value:+.2f}", f"{100 * one.low:+.2f} to {100 * one.high:+.2f}"
        rows.append([one.first, one.second, value, interval, f"{one.p:.4f}", f"{one.adjusted_p:.4f}"])
    columns = ["variant", "against", "difference", "95 % interval", "p", "p (Holm)"]
    return Sheet("Differences", 2, columns, rows)


def as_markdown(sheet: Sheet) -> str:
    rules = ["---" if index < sheet.names else "---:" for index in range(len(sheet.columns))]
    lines = [sheet.columns, rules, *([cell.replace("|", r"\|") for cell in row] for row in sheet.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_latex(sheet: Sheet) -> str:
    """LaTeX table, for the booktabs package."""
    alignment = "l" * sheet.names + "r" * (len(sheet.columns) - sheet.names)
    header, *rows = ([cell.translate(_LATEX) for cell in line] for line in (sheet.columns, *sheet.rows))
    lines = [" & ".join(cells) + r" \\" for cells in (header, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return rf"\begin{{tabular}}{{{alignment}}}" + f"\n{body}\n" + r"\end{tabular}"


def plot_variants(variants: Sequence[Variant], score: str, resamples: int, seed: int, path: Path) -> None:
    """Plot the runs, means and intervals of variants; the suffix of ``path`` selects the image format.

    Raises:
        ValueError: matplotlib does not support the format.
    """
    from matplotlib.figure import Figure  # slow import

    figure = Figure(figsize=(6, 1 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots()
    for row, variant in enumerate(variants):
        scores = 100 * variant.scores(score)
        low, high = (100 * bound for bound in variant_interval(variant, score, resamples, seed))
        mean = scores.mean()
        errors = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
        axes.errorbar(mean, row, xerr=errors, fmt="D", color="tab:blue", capsize=4, markersize=5)
        axes.plot(scores, [row + 0.2] * len(scores), "o", color="tab:orange", markersize=4)  # below the mean
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel(f"{score} in %: runs, their mean, and its 95 % interval over documents")
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        variants = load_variants(expand_patterns(args.runs), args.split)
        names = [variant.name for variant in variants]
        if args.baseline and args.baseline not in names:
            raise ValueError(f"--baseline {args.baseline} is none of {', '.join(names)}")
        drawn = (args.score, args.resamples, args.seed)
        sheets = [variant_sheet(variants, *drawn)]
        if len(variants) > 1:
            sheets.append(difference_sheet(compare(variants, *drawn, args.baseline)))
        if args.plot:
            plot_variants(variants, *drawn, args.plot)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    text = as_markdown if args.markdown else as_latex if args.latex else None
    for sheet in sheets:
        if text is None:
            console().print(console_table(sheet.columns, sheet.rows, sheet.names, sheet.title))
        else:
            print(text(sheet), end="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m analysis.compare_runs",
        description="Compare scored runs. Folders that differ only in their seed (_seed3) are runs of one variant.",
    )
    parser.add_argument("runs", nargs="+", help="run folders, or glob patterns of them")
    parser.add_argument("--split", choices=["dev", "test"], default="dev", help="split whose scores are compared")
    parser.add_argument("--score", choices=SCORES, default="f1", help="score to compare")
    parser.add_argument("--baseline", help="compare all variants with this one only")
    counts = Bounds(int, at_least=1)
    parser.add_argument("--resamples", type=counts, default=10_000, help="resamples of bootstrap and permutation test")
    parser.add_argument("--seed", type=Bounds(int, at_least=0), default=0, help="random seed of the resamples")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--latex", action="store_true", help="print LaTeX (uses the booktabs package)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the variants to a .png, .pdf or .svg file")
    return parser


if __name__ == "__main__":
    main()
