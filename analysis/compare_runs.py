"""Compare scored runs: mean and standard deviation over seeds, and significance tests between variants.

python -m analysis.compare_runs outputs/crf_seed1 outputs/crf_seed2 outputs/softmax_seed1 outputs/softmax_seed2
python -m analysis.compare_runs "outputs/cner_*_seed*" --split test --latex --plot outputs/cner.pdf
"""

import argparse
from pathlib import Path

from analysis.comparison import SCORES, compare, expand_patterns, load_variants
from analysis.sheets import as_latex, as_markdown, as_table, difference_sheet, plot_variants, variant_sheet
from common.command_line import Bounds, CommandLine
from common.log import console


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
