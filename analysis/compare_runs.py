"""Compare scored runs: mean and standard deviation over seeds, and significance tests between variants.

python -m analysis.compare_runs outputs/crf_seed1 outputs/crf_seed2 outputs/softmax_seed1 outputs/softmax_seed2
python -m analysis.compare_runs "outputs/cner_*_seed*" --split test --latex --plot outputs/cner.pdf
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from analysis.comparison import SCORES, Difference, Variant, compare, expand_patterns, load_variants
from analysis.intervals import central_interval, precision_recall_f1, resampled_sums
from common.command_line import Bounds, CommandLine
from common.log import console

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


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
    rows = [
        [
            one.first,
            one.second,
            f"{100 * one.value:+.2f}",
            f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
            f"{one.p:.4f}",
            f"{one.adjusted_p:.4f}",
        ]
        for one in differences
    ]
    columns = ["variant", "against", "difference", "95 % interval", "p", "p (Holm)"]
    return Sheet("Differences", 2, columns, rows)


def as_table(sheet: Sheet) -> Table:
    table = Table(title=sheet.title)
    for index, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if index < sheet.names else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def as_markdown(sheet: Sheet) -> str:
    rules = ["---" if index < sheet.names else "---:" for index in range(len(sheet.columns))]
    lines = [sheet.columns, rules, *([cell.replace("|", r"\|") for cell in row] for row in sheet.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_latex(sheet: Sheet) -> str:
    """LaTeX table, for the booktabs package."""
    alignment = "l" * sheet.names + "r" * (len(sheet.columns) - sheet.names)
    header, *rows = ([_escaped(cell) for cell in line] for line in (sheet.columns, *sheet.rows))
    lines = [" & ".join(cells) + r" \\" for cells in (header, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return rf"\begin{{tabular}}{{{alignment}}}" + f"\n{body}\n" + r"\end{tabular}"


def _escaped(cell: str) -> str:
    return "".join(
        _LATEX.get(character, f"\\{character}" if character in "_%&#${}" else character) for character in cell
    )


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
            console().print(as_table(sheet))
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
