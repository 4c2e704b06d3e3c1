"""The report and the comparison of runs under Lightning: the same as of other runs, from the same files."""

import shlex
import shutil
from pathlib import Path

import pytest

from analysis.compare_runs import main as compare_runs
from analysis.report.page import write_report
from analysis.report.run_data import read_run
from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import call_lightning, glue_options, ner_options, write_pairs
from tests.tools.runs import call_script


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has not predicted yet."""
    home = tmp_path_factory.mktemp("pl_report")
    write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    flags = ner_options(encoder, home / "corpus", home, head="crf", max_epochs=2, do_predict=False)
    call_lightning("run_pl_ner", **flags)
    return home / "run"


def test_curves_transitions_and_facts_are_those_of_the_run(trained: Path) -> None:
    run = read_run(trained)
    assert (run.head, run.arguments["task_name"], run.arguments["num_train_epochs"]) == ("CRF", "conll2003", 2)
    assert len(run.scalars["train/loss"]) == 16
    assert len(run.scalars["dev/loss"]) == len(run.scalars["dev/f1"]) == 2
    rates = {name for name in run.scalars if name.startswith("learning_rate/")}
    assert rates == {f"learning_rate/{part}" for part in ("encoder", "head", "crf")}
    assert run.transitions is not None
    assert "O" in run.transitions.tags


def test_what_is_missing_is_made_by_the_command_that_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (what,) = (missing := read_run(folder).missing)
    assert what == "Scores and sentences of test"
    python, script, *flags = shlex.split(missing[what])
    assert (python, script) == ("python", "run_ner_crf.py")
    call_script("run_ner_crf", **dict(flag.removeprefix("--").split("=", 1) for flag in flags), no_cuda=True)
    run = read_run(folder)
    assert run.missing == {}
    assert [(one.name, len(one.documents), one.has_confidences) for one in run.splits] == [
        ("dev", 20, True),
        ("test", 20, True),
    ]
    page = write_report(folder).read_text("utf-8")
    assert all(part in page for part in ('id="scores"', 'id="training"', 'id="transitions"', 'id="sentences"'))
    compare_runs([str(folder), str(trained)])
    assert f"{100 * run.splits[0].results['f1']:.2f}" in capsys.readouterr().out


def test_a_classifier_of_texts_is_refused(encoder: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "MRPC", {"train": 16, "dev": 8, "test": 4})
    call_lightning("run_pl_glue", **glue_options(encoder, pairs, tmp_path, max_epochs=1, do_predict=False))
    with pytest.raises(ValueError, match=r"holds a text classifier"):
        read_run(tmp_path / "run")
