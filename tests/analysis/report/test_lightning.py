"""The report of a Lightning run."""

import shlex
import shutil
from pathlib import Path

import pytest

from analysis.report.page import write_report
from analysis.report.run_data import command_of, read_run
from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import call_lightning, glue_options, ner_options, write_pairs


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
    assert (run.head, run.arguments["task_type"], run.arguments["max_epochs"]) == ("CRF", "NER", 2)
    assert len(run.scalars["train/loss"]) == 16
    assert len(run.scalars["dev/loss"]) == len(run.scalars["dev/f1"]) == 2
    rates = {name for name in run.scalars if name.startswith("learning_rate/")}
    assert rates == {f"learning_rate/{part}" for part in ("encoder", "head", "crf")}
    assert run.transitions is not None
    assert "O" in run.transitions.tags


def test_what_is_missing_is_made_by_the_command_that_is_named(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (what,) = (missing := read_run(folder).missing)
    assert what == "Scores and sentences of test"
    python, script, *flags = shlex.split(missing[what].replace(str(trained), str(folder)))
    assert (python, script, "--do_train" in flags) == ("python", "run_pl_ner.py", False)
    values = {name.removeprefix("--"): value for name, value in zip(flags, [*flags[1:], "--"], strict=True)}
    given = {name: value.startswith("--") or value for name, value in values.items() if f"--{name}" in flags}
    call_lightning("run_pl_ner", **{name: value for name, value in given.items() if name != "gpus"})
    run = read_run(folder)
    assert run.missing == {}
    assert [(split.name, len(split.documents), split.has_confidences) for split in run.splits] == [("test", 20, True)]
    page = write_report(folder).read_text("utf-8")
    assert all(part in page for part in ('id="scores"', 'id="training"', 'id="transitions"', 'id="sentences"'))
    shutil.rmtree(folder / "tensorboard")
    assert list(read_run(folder).missing) == ["Training curves"]


def test_flags_of_the_training_are_left_out_with_their_values() -> None:
    line = "run_pl_ner.py --do_train --resume_from_checkpoint auto --data_dir d --overwrite_output_dir --do_predict"
    environment = {"command": [*line.split(), "--resume_from_checkpoint=last.ckpt", "--gpus", "0"]}
    assert command_of(environment, "do_predict") == "python run_pl_ner.py --data_dir d --gpus 0 --do_predict"
    assert command_of({"command": line.split()}, "do_train") == f"python {line}"


def test_a_classifier_of_texts_is_refused(encoder: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "MRPC", {"train": 16, "dev": 8, "test": 4})
    call_lightning("run_pl_glue", **glue_options(encoder, pairs, tmp_path, max_epochs=1, do_predict=False))
    with pytest.raises(ValueError, match=r"holds a classifier of texts"):
        read_run(tmp_path / "run")
