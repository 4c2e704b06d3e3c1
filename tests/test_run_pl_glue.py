"""run_pl_glue.py: its results, and equal results on several processes."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from analysis.report.run_data import read_scalars
from run_pl_glue import main
from tests.lightning_runs.lightning_runs import (
    call_lightning,
    command_line,
    glue_options,
    on_two_machines,
    read_scores,
    write_pairs,
)
from tests.tools.runs import encoder_without_dropout

SIZES = {"train": 64, "dev": 23, "test": 11}


@pytest.fixture(scope="module")
def home(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pl_glue")
    write_pairs(home / "MRPC", SIZES)
    encoder_without_dropout(encoder, home / "calm_encoder")
    return home


def options(home: Path, name: str, **changes: Any) -> dict[str, Any]:
    return glue_options(home / "calm_encoder", home, home) | {"output_dir": home / name} | changes


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    call_lightning("run_pl_glue", **options(home, "run", max_epochs=6))
    return home / "run"


def dev(home: Path) -> tuple[list[list[str]], list[int]]:
    rows = [line.split("\t") for line in (home / "MRPC" / "dev.tsv").read_text("utf-8").splitlines()[1:]]
    return [[row[side] for row in rows] for side in (3, 4)], [int(row[0]) for row in rows]


def test_the_best_model_scores_by_itself_what_the_run_says(run: Path, home: Path) -> None:
    texts, gold = dev(home)
    tokenizer = AutoTokenizer.from_pretrained(run)
    model = AutoModelForSequenceClassification.from_pretrained(run).eval()
    with torch.no_grad():
        logits = model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits
    found, scores = logits.argmax(-1).numpy(), read_scores(run, "eval")
    assert scores["acc"] == pytest.approx(float(np.mean(found == np.array(gold))))
    assert scores["f1"] == pytest.approx(f1_score(gold, found))
    assert scores["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.tensor(gold))), rel=1e-4
    )
    assert scores["acc"] > 0.9


def test_a_submission_has_a_line_for_each_text(run: Path) -> None:
    lines = (run / "submission" / "MRPC.tsv").read_text("utf-8").splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(number) for number in range(11)]
    assert {line.split("\t")[1] for line in lines[1:]} == {"0", "1"}


def test_a_run_has_the_files_and_curves_of_the_other_scripts(run: Path) -> None:
    scalars = read_scalars(run / "tensorboard")
    assert {
        "train/loss",
        "dev/loss",
        "dev/acc",
        "dev/f1",
        "learning_rate/encoder",
        "learning_rate/head",
    } <= scalars.keys()
    assert len(scalars["dev/loss"]) == 6
    for name in ("config.json", "training_args.json", "train_results.json", "environment.json", "last.ckpt"):
        assert (run / name).is_file(), name


def test_the_best_folder_predicts_without_training(run: Path, home: Path) -> None:
    trained = {"model_name_or_path": run, "do_train": False, "do_eval": True, "from_scratch": False}
    call_lightning("run_pl_glue", **options(home, "applied", **trained))
    assert read_scores(home / "applied", "eval") == pytest.approx(read_scores(run, "eval"), abs=1e-6)
    submissions = [(folder / "submission" / "MRPC.tsv").read_text("utf-8") for folder in (run, home / "applied")]
    assert submissions[0] == submissions[1]


def test_a_model_of_other_classes_is_not_applied(run: Path, home: Path) -> None:
    trained = {"model_name_or_path": run, "do_train": False, "from_scratch": False, "task": "rte"}
    with pytest.raises(SystemExit, match="was trained for 0, 1, not for entailment, not_entailment"):
        call_lightning("run_pl_glue", **options(home, "other_classes", **trained))


def test_a_checkpoint_of_another_task_with_as_many_classes_is_refused(run: Path, home: Path) -> None:
    rows = [line.split("\t") for line in (home / "MRPC" / "train.tsv").read_text("utf-8").splitlines()[1:]]
    lines = ["index\tsentence1\tsentence2\tlabel", *(f"0\t{row[3]}\t{row[4]}\t{row[0]}" for row in rows)]
    (home / "WNLI").mkdir()
    for split in ("train", "dev"):
        (home / "WNLI" / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    chosen = {"task": "WNLI", "data_dir": home / "WNLI", "resume_from_checkpoint": run / "last.ckpt"}
    with pytest.raises(SystemExit, match=r"last\.ckpt was trained with --task_name mrpc, not wnli: use the same value"):
        call_lightning("run_pl_glue", **options(home, "other task", **chosen))


def write_scored_pairs(home: Path) -> None:
    """The pairs of MRPC with a score between 1 and 4 instead of a class, as STS-B has it."""
    rows = (home / "MRPC" / "train.tsv").read_text("utf-8").splitlines()[1:]
    lines = ["index\tsentence1\tsentence2\tscore"]
    for number, row in enumerate(rows):
        same, _, _, first, second = row.split("\t")
        lines.append(f"{number}\t{first}\t{second}\t{1 + 3 * int(same)}.500")
    for split in ("train", "dev"):
        (home / "STS-B").mkdir(exist_ok=True)
        (home / "STS-B" / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    test = ["\t".join(line.split("\t")[:3]) for line in lines]
    (home / "STS-B" / "test.tsv").write_text("\n".join(test) + "\n", "utf-8")


def test_a_score_is_learnt_where_there_are_no_classes(home: Path) -> None:
    write_scored_pairs(home)
    call_lightning("run_pl_glue", **options(home, "sts", task="STS-B", max_epochs=8))
    assert read_scores(home / "sts", "eval")["pearson"] > 0.9
    values = [line.split("\t")[1] for line in (home / "sts" / "submission" / "STS-B.tsv").read_text().splitlines()[1:]]
    assert all(re.fullmatch(r"[0-5]\.\d{3}", value) for value in values)
    assert len(set(values)) > 2


def test_mnli_is_scored_on_both_dev_splits_and_its_model_fills_in_ax(home: Path) -> None:
    header = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tgold_label"
    classes = ["neutral", "entailment", "contradiction"]
    words = {"neutral": "then", "entailment": "near", "contradiction": "left"}
    rows = [f"{n}\t0\t0n\tfiction\tthe man said\t{words[classes[n % 3]]}\t{classes[n % 3]}" for n in range(36)]
    (home / "MNLI").mkdir()
    for name, own in {"train": rows, "dev_matched": rows[:9], "dev_mismatched": rows[4:17]}.items():
        (home / "MNLI" / f"{name}.tsv").write_text("\n".join([header, *own]) + "\n", "utf-8")
    for name in ("test_matched", "test_mismatched"):
        cut = ["\t".join(row.split("\t")[:-1]) for row in [header, *rows[:5]]]
        (home / "MNLI" / f"{name}.tsv").write_text("\n".join(cut) + "\n", "utf-8")
    (home / "diagnostic").mkdir()
    (home / "diagnostic" / "diagnostic.tsv").write_text(
        "index\tsentence1\tsentence2\n0\tthe man said\tnear\n1\tthe man said\tleft\n", "utf-8"
    )
    call_lightning(
        "run_pl_glue", **options(home, "mnli", task="mnli", max_epochs=12, dropout=0.1, attention_dropout=0.0)
    )
    scores = read_scores(home / "mnli", "eval")
    assert {"acc", "loss", "dev_mismatched_acc", "dev_mismatched_loss"} == scores.keys()
    assert scores["acc"] == scores["dev_mismatched_acc"] == 1.0
    assert {path.name for path in (home / "mnli" / "submission").iterdir()} == {"MNLI-m.tsv", "MNLI-mm.tsv"}
    trained = {"model_name_or_path": home / "mnli", "do_train": False, "from_scratch": False}
    call_lightning("run_pl_glue", **options(home, "ax", task="ax", **trained))
    assert (home / "ax" / "submission" / "AX.tsv").read_text("utf-8").splitlines() == [
        "index\tprediction",
        "0\tentailment",
        "1\tcontradiction",
    ]
    with pytest.raises(SystemExit, match="AX has no train split; apply a trained model"):
        call_lightning("run_pl_glue", **options(home, "ax training", task="ax"))


def test_the_run_has_a_folder_of_task_and_time_where_none_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = options(home, "unused", max_epochs=1, do_predict=False)
    del chosen["output_dir"]
    with patch.object(sys, "argv", ["run_pl_glue.py", *command_line(gpus=0, **chosen)]):
        main()
    (folder,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"MRPC_\d{8}_\d{6}", folder.name)
    assert (folder / "config.json").is_file()


def test_early_stopping_ends_the_run(home: Path) -> None:
    hopeless = {"learning_rate": 1e-9, "max_epochs": 30, "early_stopping_patience": 2, "do_predict": False}
    call_lightning("run_pl_glue", **options(home, "stopped", weight_decay=0.0, **hopeless))
    losses = list(read_scalars(home / "stopped" / "tensorboard")["dev/loss"].values())
    assert 3 <= len(losses) < 30
    assert min(losses[-2:]) >= min(losses[:-2])


def test_a_hugging_face_data_set_serves_instead_of_files(run: Path, home: Path) -> None:
    def split(name: str) -> datasets.Dataset:
        rows = [line.split("\t") for line in (home / "MRPC" / f"{name}.tsv").read_text("utf-8").splitlines()[1:]]
        labels = [-1 if name == "test" else int(row[0]) for row in rows]
        return datasets.Dataset.from_dict(
            {"sentence1": [row[3] for row in rows], "sentence2": [row[4] for row in rows], "label": labels}
        )

    names = {"train": "train", "validation": "dev", "test": "test"}
    datasets.DatasetDict({key: split(name) for key, name in names.items()}).save_to_disk(home / "hub")
    chosen = options(home, "from_hub", max_epochs=6, dataset_name=home / "hub", data_dir="")
    call_lightning("run_pl_glue", **chosen)
    assert read_scores(home / "from_hub", "eval") == read_scores(run, "eval")


def test_features_are_built_anew_where_that_is_asked_for(run: Path, home: Path) -> None:
    before = {folder.name: folder.stat().st_mtime_ns for folder in (home / "cache").glob("texts-*")}
    call_lightning("run_pl_glue", **options(home, "again", max_epochs=1, do_predict=False))
    assert before.items() <= {folder.name: folder.stat().st_mtime_ns for folder in (home / "cache").iterdir()}.items()
    call_lightning("run_pl_glue", **options(home, "anew", max_epochs=1, do_predict=False, overwrite_cache=True))
    after = {folder.name: folder.stat().st_mtime_ns for folder in (home / "cache").glob("texts-*")}
    assert sum(after[name] != before[name] for name in before) >= 2


def test_truncated_texts_are_counted(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call_lightning("run_pl_glue", **options(home, "cut", max_epochs=1, max_seq_length=9, do_predict=False))
    assert re.search(r"train: 64 texts or pairs, \d+ of them truncated", capfd.readouterr().err)


@pytest.mark.slow
def test_two_machines_train_and_score_as_one(home: Path) -> None:
    call_lightning("run_pl_glue", **options(home, "alone", max_epochs=2))
    for done in on_two_machines("run_pl_glue", **options(home, "together", max_epochs=2, train_batch_size=4)):
        assert done.returncode == 0, done.stdout + done.stderr
    assert read_scores(home / "together", "eval") == pytest.approx(read_scores(home / "alone", "eval"), abs=1e-4)
    curves = [read_scalars(home / name / "tensorboard")["train/loss"] for name in ("alone", "together")]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    submissions = [(home / name / "submission" / "MRPC.tsv").read_text("utf-8") for name in ("alone", "together")]
    assert submissions[0] == submissions[1]


@pytest.mark.parametrize("task", ["MRPC", "STS-B"])
def test_a_small_last_step_is_the_same_where_some_of_its_batches_are_empty(home: Path, task: str) -> None:
    if task == "STS-B":
        write_scored_pairs(home)
    rows = (home / task / "train.tsv").read_text("utf-8").splitlines(keepends=True)
    small = home / f"small {task}"
    shutil.copytree(home / task, small / task)
    (small / task / "train.tsv").write_text("".join(rows[:7]), "utf-8")  # a step of four, and one of two
    scores = []
    for size, rounds in ((4, 1), (1, 4)):
        folder = small / f"by {size}"
        batches = {
            "train_batch_size": size,
            "accumulate_grad_batches": rounds,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        }
        chosen = options(home, "unused", task=task, max_epochs=1, data_dir=small, output_dir=folder, **batches)
        call_lightning("run_pl_glue", **chosen)
        scores.append(read_scores(folder, "eval")["loss"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
