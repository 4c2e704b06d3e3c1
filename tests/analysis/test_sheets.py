"""Tables of variants in three forms."""

import re

from analysis.compare_runs import Difference, Sheet, as_latex, as_markdown, difference_sheet, variant_sheet
from tests.analysis.test_significance import variant

SHEET = Sheet("Title", 1, ["variant", "95 % interval"], [["crf_fgm|a", "1.0-2.0"], [r"a\b~^{c}", "-"]])


def test_markdown() -> None:
    assert as_markdown(SHEET).splitlines() == [
        "| variant | 95 % interval |",
        "| --- | ---: |",
        r"| crf_fgm\|a | 1.0-2.0 |",
        r"| a\b~^{c} | - |",
    ]


def test_latex_is_escaped() -> None:
    assert as_latex(SHEET).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"variant & 95 \% interval \\",
        r"\midrule",
        r"crf\_fgm|a & 1.0-2.0 \\",
        r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}\{c\} & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_single_run_has_no_deviation() -> None:
    variants = [variant("one", 0.8, 1), variant("three", 0.8, 1, runs=3)]
    one, three = variant_sheet(variants, "f1", 500, seed=0).rows
    assert one[:2] == ["one", "1"]
    assert one[3] == "-"
    assert three[2:4] == [
        f"{100 * variants[1].scores('f1').mean():.2f}",
        f"{100 * variants[1].scores('f1').std(ddof=1):.2f}",
    ]
    assert re.fullmatch(r"\d\d\.\d-\d\d\.\d", three[4])


def test_differences_are_points_with_their_sign() -> None:
    difference = Difference("crf", "softmax", 0.0123, -0.001, 0.02, 0.03, 0.06)
    assert difference_sheet([difference]).rows == [
        ["crf", "softmax", "+1.23", "-0.10 to +2.00", "0.0300", "0.0600"],
    ]
