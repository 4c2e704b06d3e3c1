"""The comparison as a user calls it."""

from pathlib import Path

import pytest

from analysis.compare_runs import main
from tests.analysis.runs import write_run
from tests.tools.runs import FinishedRun


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for name, accuracy in (("crf", 0.9), ("softmax", 0.7)):
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{name}_seed{seed}", accuracy, seed)
    return tmp_path


def test_variants_and_their_difference_are_printed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(outputs / "*_seed*"), "--resamples", "500"])
    printed = capsys.readouterr().out
    assert "f1 on 200 documents" in printed
    for name in ("crf", "softmax"):
        assert f"│ {name} " in printed
    assert "0.0020" in printed  # 1 of 501


def test_markdown_and_latex(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(outputs / "crf_seed*"), str(outputs / "softmax_seed*")]
    main([*runs, "--markdown", "--resamples", "100", "--baseline", "softmax", "--score", "recall"])
    printed = capsys.readouterr().out
    assert "| crf | 3 |" in printed
    assert "| crf | softmax | +" in printed
    main([*runs, "--latex", "--resamples", "100"])
    assert capsys.readouterr().out.count(r"\begin{tabular}") == 2


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_picture_is_drawn(outputs: Path, suffix: str) -> None:
    picture = outputs / "figures" / f"variants{suffix}"
    main([str(outputs / "crf_seed*"), "--plot", str(picture), "--resamples", "100"])
    beginning = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert picture.read_bytes().startswith(beginning)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere_*"], "no such folder"),
        (["{outputs}/crf_seed1", "--split", "test"], "has no test_documents.jsonl"),
        (["{outputs}/crf_seed1", "--baseline", "span"], "--baseline span is none of crf"),
        (["{outputs}/crf_seed1", "--plot", "{outputs}/plot.doc"], "doc"),
        (["{outputs}/crf_seed1", "--resamples", "0"], "--resamples 0: must be a whole number, at least 1"),
    ],
)
def test_what_is_wrong_is_said(
    flags: list[str], message: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([flag.format(outputs=outputs) for flag in flags])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("split", ["dev", "test"])
def test_real_runs_are_compared(
    crf_run: FinishedRun, softmax_run: FinishedRun, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(crf_run.folder), str(softmax_run.folder), "--split", split, "--resamples", "100"])
    printed = capsys.readouterr().out
    assert "f1 on 20 documents" in printed
    assert "Differences" in printed
