"""run_pl_ner.py: its results, the files of a run, and equal results on several processes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

from analysis.compare_runs import main as compare_runs
from analysis.documents import read_documents
from analysis.report.run_data import read_scalars
from common.tag_schemes import split_tag
from models import BertCrfForNer
from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import (
    call_lightning,
    ner_options,
    on_two_machines,
    read_scores,
    start_lightning,
)
from tests.tools.runs import call_script, encoder_without_dropout, read_json

SIZES = {"train": 60, "dev": 21, "test": 21}  # not divisible by two


@pytest.fixture(scope="module")
def home(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pl_ner")
    write_corpus(home / "corpus", SIZES)
    encoder_without_dropout(encoder, home / "calm_encoder")
    return home


@pytest.fixture(scope="module")
def run(home: Path, encoder: Path) -> Path:
    """A finished run with a softmax, with dropout."""
    call_lightning("run_pl_ner", **ner_options(encoder, home / "corpus", home, max_epochs=5))
    return home / "run"


def short(home: Path, name: str, **changes: Any) -> dict[str, Any]:
    options = ner_options(home / "calm_encoder", home / "corpus", home, **changes)
    return options | {"output_dir": home / name}


def test_a_run_leaves_checkpoints_best_model_scores_and_predictions(run: Path) -> None:
    assert [path.name for path in run.glob("*.ckpt")] == ["last.ckpt"]
    assert read_json(run / "train_results.json")["steps"] == 40
    assert read_json(run / "training_args.json")["task_name"] == "conll2003"
    assert read_json(run / "environment.json")["packages"]["lightning"]
    scores = read_scores(run)
    assert {"loss", "accuracy", "precision", "recall", "f1"} <= scores.keys()
    assert scores["f1"] > 0.4
    blocks = (run / "test_predictions.txt").read_text("utf-8").strip().split("\n\n")
    gold = (run.parent / "corpus" / "test.txt").read_text("utf-8").strip().split("\n\n")
    words = [[line.split()[0] for line in block.splitlines()] for block in blocks]
    assert words == [[line.split()[0] for line in block.splitlines()] for block in gold]
    assert {split_tag(line.split()[1])[0] for block in blocks for line in block.splitlines()} <= set("OBI")


def test_the_test_split_is_analysed_as_by_the_other_scripts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_json(run / "test_results.json")
    low, high = results["intervals"]["f1"]
    assert low <= results["f1"] <= high
    assert results["f1"] == pytest.approx(read_scores(run)["f1"])
    documents = read_documents(run / "test_documents.jsonl")
    assert len(documents) == SIZES["test"]
    found = [confidence for document in documents for confidence in document.confidences]
    assert found
    assert all(0 < confidence <= 1 for confidence in found)
    compare_runs(["--split", "test", str(run)])
    assert f"{100 * results['f1']:.2f}" in capsys.readouterr().out


def test_the_accuracy_is_that_of_the_written_predictions(run: Path) -> None:
    found = (run / "test_predictions.txt").read_text("utf-8").split()
    gold = (run.parent / "corpus" / "test.txt").read_text("utf-8").split()
    right = sum(one == other for one, other in zip(found[1::2], gold[1::2], strict=True))
    assert read_scores(run)["accuracy"] == pytest.approx(right / len(gold[1::2]))


def test_the_run_folder_holds_the_best_model(run: Path) -> None:
    losses = list(read_scalars(run / "tensorboard")["dev/loss"].values())
    assert len(losses) == 5
    assert -read_json(run / "train_results.json")["best_score"] == pytest.approx(min(losses))
    published = AutoModelForTokenClassification.from_pretrained(run).state_dict()
    best = AutoModelForTokenClassification.from_pretrained(run / "checkpoint-best").state_dict()
    assert all(torch.equal(best[name], weight) for name, weight in published.items())
    assert read_scores(run, "eval")["loss"] == pytest.approx(min(losses))


def test_the_best_may_be_chosen_by_another_score(home: Path) -> None:
    chosen = {"metric_for_best_model": "f1", "early_stopping_patience": 1, "max_epochs": 4, "do_predict": False}
    call_lightning("run_pl_ner", **short(home, "by_f1", **chosen))
    f1 = list(read_scalars(home / "by_f1" / "tensorboard")["dev/f1"].values())
    assert read_json(home / "by_f1" / "train_results.json")["best_score"] == pytest.approx(max(f1))


def test_no_curves_are_written_where_none_are_wanted(home: Path) -> None:
    call_lightning("run_pl_ner", **short(home, "no_curves", max_epochs=1, report_to="none"))
    assert (home / "no_curves" / "test_results.json").is_file()
    assert not [
        path for path in (home / "no_curves").rglob("*") if "tensorboard" in str(path) or "tfevents" in path.name
    ]
    assert not Path("lightning_logs").exists()


def test_losses_rates_and_scores_are_logged(run: Path) -> None:
    scalars = read_scalars(run / "tensorboard")
    assert len(scalars["train/loss"]) == 40
    rates = list(scalars["learning_rate/encoder"].values())
    assert rates == sorted(rates, reverse=True)
    assert {f"dev/{name}" for name in ("loss", "accuracy", "precision", "recall", "f1")} <= scalars.keys()
    assert {"train/words_per_second", "train/gradient_norm", "dev_types/PER/f1"} <= scalars.keys()


def test_the_other_scripts_score_and_predict_with_the_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = {name: (run / name).read_bytes() for name in ("eval_results.json", "test_predictions.jsonl")}
    for name in before:
        (tmp_path / "run" / name).unlink()
    saved = {"config_file": run / "training_args.json", "output_dir": tmp_path / "run", "no_cuda": True}
    call_script("run_ner_softmax", **saved, do_train=False, do_eval=True, do_predict=True)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_predicting_alone_scores_as_the_training_run_did(run: Path, home: Path, encoder: Path) -> None:
    before = read_scores(run)
    (run / "test_results.txt").unlink()
    call_lightning("run_pl_ner", **ner_options(encoder, home / "corpus", home, do_train=False))
    assert read_scores(run) == before


def test_a_trained_folder_predicts_without_a_checkpoint(run: Path, home: Path) -> None:
    options = ner_options(run, home / "corpus", home, do_train=False, from_scratch=False)
    call_lightning("run_pl_ner", **options | {"output_dir": home / "applied"})
    assert read_scores(home / "applied") == pytest.approx(read_scores(run), abs=1e-6)


def test_an_untrained_model_does_not_predict(home: Path, encoder: Path) -> None:
    options = ner_options(encoder, home / "corpus", home, do_train=False)
    with pytest.raises(SystemExit, match="holds no trained model"):
        call_lightning("run_pl_ner", **options | {"output_dir": home / "untrained"})


def test_an_earlier_run_is_not_written_over_by_accident(run: Path, home: Path, encoder: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds a trained model; name another --output_dir"):
        call_lightning("run_pl_ner", **ner_options(encoder, home / "corpus", home))
    assert (run / "last.ckpt").is_file()


def test_an_earlier_run_is_cleared_away_where_that_is_asked_for(home: Path) -> None:
    call_lightning("run_pl_ner", **short(home, "twice", max_epochs=2))
    assert list((home / "twice").glob("test_*"))
    call_lightning("run_pl_ner", **short(home, "twice", max_epochs=1, do_predict=False, overwrite_output_dir=True))
    assert read_json(home / "twice" / "train_results.json")["steps"] == 8
    assert len(read_scalars(home / "twice" / "tensorboard")["dev/loss"]) == 1
    assert not list((home / "twice").glob("test_*"))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_earlier_run_is_kept_where_a_split_is_missing(split: str, run: Path, home: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", SIZES)
    (corpus / f"{split}.txt").unlink()
    shutil.copytree(run, tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    options = ner_options(home / "calm_encoder", corpus, tmp_path, overwrite_output_dir=True)
    with pytest.raises(SystemExit, match=f"no file for the {split} split"):
        call_lightning("run_pl_ner", **options)
    assert {path.name for path in (tmp_path / "run").iterdir()} == left


def test_a_crf_is_trained_and_saved_with_its_legal_transitions(home: Path) -> None:
    options = {"head": "crf", "crf_learning_rate": 1e-2, "max_epochs": 4, "adafactor": True, "max_seq_length": 32}
    call_lightning("run_pl_ner", **short(home, "crf", **options))
    assert read_scores(home / "crf")["f1"] > 0.3
    model = BertCrfForNer.from_pretrained(home / "crf")
    assert model.config.crf_legal is not None
    assert (model.config.eval_max_seq_length, model.config.word_unit) == (32, "word")
    assert "learning_rate/crf" in read_scalars(home / "crf" / "tensorboard")


def corpus_of_columns(folder: Path, sizes: dict[str, int]) -> Path:
    """The tiny corpus with parts of speech and chunks beside the names."""
    write_corpus(folder, sizes)
    for path in folder.glob("*.txt"):
        blocks = []
        for block in path.read_text("utf-8").strip().split("\n\n"):
            pairs = [line.split() for line in block.splitlines()]
            pos = ["NN" if tag == "O" else "NNP" for _, tag in pairs]
            chunks = ["O" if tag == "O" else f"{tag[0]}-NP" for _, tag in pairs]
            rows = zip(pairs, pos, chunks, strict=True)
            blocks.append("\n".join(f"{word} {part} {chunk} {tag}" for (word, tag), part, chunk in rows))
        path.write_text("\n\n".join(blocks) + "\n", "utf-8")
    return folder


@pytest.mark.parametrize(("task_type", "tags"), [("POS", {"NN", "NNP"}), ("Chunk", {"O", "B-NP", "I-NP"})])
def test_parts_of_speech_and_chunks_are_read_from_the_same_files(
    task_type: str, tags: set[str], home: Path, encoder: Path
) -> None:
    corpus = corpus_of_columns(home / "columns", SIZES)
    options = ner_options(encoder, corpus, home, task_type=task_type, labels="", max_epochs=6)
    call_lightning("run_pl_ner", **options | {"output_dir": home / task_type})
    found = (home / task_type / "test_predictions.txt").read_text("utf-8").split()
    assert set(found[1::2]) == tags
    assert read_scores(home / task_type)["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crf_learning_rate": 0.5}, "--crf_learning_rate 0.5 has no effect: it is an option of --head crf"),
        ({"task_type": "Parse"}, "--task_type"),
        ({"metric_for_best_model": "mcc"}, "--metric_for_best_model"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    changes: dict[str, Any], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call_lightning("run_pl_ner", **short(home, "refused", **changes))
    assert said in capsys.readouterr().err


def test_labels_are_those_of_conll_2003_by_default(home: Path) -> None:
    corpus = home / "other_types"
    corpus.mkdir()
    for split in SIZES:
        (corpus / f"{split}.txt").write_text("a B-X\n\nb O\n", "utf-8")
    with pytest.raises(SystemExit, match=r"entity type 'X' is not among the labels \(LOC, MISC, ORG, PER\)"):
        call_lightning("run_pl_ner", **short(home, "other", labels="", data_dir=corpus))


def test_an_unlabelled_test_split_is_predicted_and_not_scored(home: Path) -> None:
    corpus = home / "unlabelled"
    shutil.copytree(home / "corpus", corpus)
    (corpus / "test.txt").write_text("anna\nleft\n\nbob\n", "utf-8")
    call_lightning("run_pl_ner", **short(home, "unscored", data_dir=corpus, max_epochs=1))
    assert len((home / "unscored" / "test_predictions.txt").read_text("utf-8").split()) == 6
    assert not (home / "unscored" / "test_results.txt").exists()


@pytest.fixture(scope="module")
def alone(home: Path) -> Path:
    """One process with the global batch of two, in two epochs."""
    call_lightning("run_pl_ner", **short(home, "alone", train_batch_size=8, max_epochs=3, max_seq_length=12))
    return home / "alone"


@pytest.mark.slow
def test_two_processes_with_accumulation_train_and_score_as_one(alone: Path, home: Path) -> None:
    name = "together"
    sizes = {"devices": 2, "train_batch_size": 2, "accumulate_grad_batches": 2}
    done = start_lightning("run_pl_ner", **short(home, name, max_epochs=3, max_seq_length=12, **sizes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_scores(home / name) == pytest.approx(read_scores(alone), abs=1e-4)
    assert (home / name / "test_predictions.txt").read_bytes() == (alone / "test_predictions.txt").read_bytes()
    ours, theirs = read_scalars(alone / "tensorboard"), read_scalars(home / name / "tensorboard")
    for curve in ("train/loss", "dev/loss", "dev/f1"):
        assert theirs[curve] == pytest.approx(ours[curve], rel=1e-3, abs=1e-4)
    assert done.stderr.count("train: 60 sentences") == 1


@pytest.mark.slow
def test_two_machines_train_and_score_as_one(alone: Path, home: Path) -> None:
    chosen = short(home, "machines", max_epochs=3, max_seq_length=12, train_batch_size=4)
    for done in on_two_machines("run_pl_ner", **chosen):
        assert done.returncode == 0, done.stdout + done.stderr
    assert read_scores(home / "machines") == pytest.approx(read_scores(alone), abs=1e-4)
    assert read_json(home / "machines" / "environment.json")["processes"] == 2
    log = (home / "machines" / "run.log").read_text("utf-8")
    assert log.count("train: 60 sentences") == log.count("Epoch 2") == 1


def test_accumulation_is_a_larger_batch(alone: Path, home: Path) -> None:
    options = {"train_batch_size": 2, "gradient_accumulation_steps": 4, "max_epochs": 3, "max_seq_length": 12}
    options |= {"num_workers": 1, "overwrite_cache": True}
    call_lightning("run_pl_ner", **short(home, "rounds", **options))
    losses = [read_scalars(folder / "tensorboard")["train/loss"] for folder in (alone, home / "rounds")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert read_scores(home / "rounds") == pytest.approx(read_scores(alone), abs=1e-4)
