"""The scripts from their command line to their files."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from analysis.report.run_data import read_scalars
from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.tools.runs import (
    SCRIPTS,
    FinishedRun,
    call_script,
    crf,
    options_of_run,
    read_json,
    read_predictions,
    start_script,
)
from tools.recipe import start_run

all_runs = pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
TAGGERS: dict[str, type[Tagger]] = {"run_ner_crf": BertCrfForNer, "run_ner_softmax": BertSoftmaxForNer}


@pytest.fixture
def run(run_name: str, request: pytest.FixtureRequest) -> FinishedRun:
    found: FinishedRun = request.getfixturevalue(run_name)
    return found


@pytest.fixture
def options(encoder: Path, corpus_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """A run of two steps."""
    return {**options_of_run(encoder, corpus_dir, tmp_path), "from_scratch": True, "max_steps": 2}


def error_of(script: str, **options: Any) -> str:
    """What the user reads when a script gives up."""
    with pytest.raises(SystemExit) as ended:
        call_script(script, **options)
    assert isinstance(ended.value.code, str)
    return ended.value.code


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_offer_the_functions_that_the_field_knows(script: str) -> None:
    module = importlib.import_module(script)
    for name in ("train", "evaluate", "predict", "load_and_cache_examples"):
        assert callable(getattr(module, name))


@all_runs
def test_the_run_folder_holds_everything(run: FinishedRun) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {"training_args.json", "environment.json", "run.log", "tensorboard"} <= names
    assert {"eval_results.txt", "eval_results.json", "test_results.txt", "test_results.json"} <= names
    assert {"test_predictions.jsonl", "checkpoint-best", "checkpoint-16", "checkpoint-48"} <= names


@all_runs
def test_the_model_learns_the_tiny_corpus(run: FinishedRun) -> None:
    assert read_json(run.folder / "eval_results.json")["f1"] > 0.8
    assert read_json(run.folder / "test_results.json")["f1"] > 0.8


@all_runs
def test_the_config_names_labels_and_scheme(run: FinishedRun) -> None:
    config = read_json(run.folder / "config.json")
    labels = ["O", *(f"{prefix}-{name}" for name in ("LOC", "ORG", "PER") for prefix in "BIS")]
    assert list(config["id2label"].values()) == labels
    assert config["label2id"] == {label: index for index, label in enumerate(labels)}
    assert config["tag_markup"] == "bios"
    assert config["architectures"] == [TAGGERS[run.script].__name__]


def test_schemes_of_other_letters_train_the_same_model(options: dict[str, Any], tmp_path: Path) -> None:
    letters = {"bioes": "BIES", "bmes": "BMES", "bilou": "BILU"}
    results = []
    for markup, prefixes in letters.items():
        folder = tmp_path / markup
        changes = {"output_dir": folder, "markup": markup, "max_steps": 20, "do_train": True, "do_eval": True}
        call_script("run_ner_crf", **options | changes)
        tags = read_json(folder / "config.json")["id2label"].values()
        assert {tag.partition("-")[0] for tag in tags} == {"O", *prefixes}
        results.append(read_json(folder / "eval_results.json"))
    assert results[0] == results[1] == results[2]
    assert results[0]["f1"] > 0


@all_runs
def test_the_folder_loads_with_from_pretrained(run: FinishedRun) -> None:
    model, report = TAGGERS[run.script].from_pretrained(run.folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.label_names[0] == "O"


@all_runs
def test_arguments_and_environment_are_written_down(run: FinishedRun) -> None:
    arguments = read_json(run.folder / "training_args.json")
    assert arguments["learning_rate"] == 2e-3
    assert arguments["num_train_epochs"] == 6.0
    environment = read_json(run.folder / "environment.json")
    assert environment["command"][0] == f"{run.script}.py"
    assert "--learning_rate=0.002" in environment["command"]
    assert environment["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert environment["processes"] == 1


@all_runs
def test_the_log_tells_counts_scores_and_where_things_are(run: FinishedRun) -> None:
    log = (run.folder / "run.log").read_text("utf-8")
    assert "train: 60 sentences" in log
    assert "0 words lost" in log
    assert "dev F1" in log
    assert "step " in log
    assert "test_predictions.jsonl" in log
    assert "\r" not in log


@all_runs
def test_tensorboard_shows_loss_rates_and_scores(run: FinishedRun) -> None:
    scalars = read_scalars(run.folder / "tensorboard")
    assert list(scalars["train/loss"]) == list(range(4, 49, 4))
    assert list(scalars["dev/f1"]) == [8, 16, 24, 32, 40, 48]
    parts = {"encoder", "head"} | ({"crf"} if run.script == "run_ner_crf" else set())
    assert {name for name in scalars if name.startswith("learning_rate/")} == {f"learning_rate/{p}" for p in parts}
    assert max(scalars["dev/f1"].values()) == pytest.approx(read_json(run.folder / "eval_results.json")["f1"], abs=1e-6)


@all_runs
def test_every_checkpoint_is_scored_and_predicted(run: FinishedRun) -> None:
    scores = read_scalars(run.folder / "tensorboard")["dev/f1"]
    for step in (16, 32, 48):
        folder = run.folder / f"checkpoint-{step}"
        assert read_json(folder / "eval_results.json")["f1"] == pytest.approx(scores[step], abs=1e-6)
        assert len(read_predictions(folder)) == 20
    best = load_file(run.folder / "checkpoint-best" / "model.safetensors")
    final = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(best[name], final[name]) for name in final)


def test_checkpoints_are_decoded_as_the_run_is(options: dict[str, Any]) -> None:
    call_script("run_ner_crf", **options, do_train=True, save_steps=2)  # the checkpoint is the final model
    scores = []
    for constraints in (True, False):
        call_script("run_ner_crf", **options, do_eval=True, eval_all_checkpoints=True, crf_constraints=constraints)
        run = Path(options["output_dir"])
        scores.append(read_json(run / "eval_results.json"))
        assert read_json(run / "checkpoint-2" / "eval_results.json") == scores[-1]
    assert scores[0] != scores[1]


@all_runs
def test_evaluation_alone_gives_the_same_scores(run: FinishedRun, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path)
    before = read_json(folder / "eval_results.json"), read_predictions(folder)
    for name in ("eval_results.json", "test_predictions.jsonl"):
        (folder / name).unlink()
    options = {**run.options, "output_dir": folder, "model_name_or_path": "not looked at", "per_gpu_eval_batch_size": 3}
    call_script(run.script, **options, do_eval=True, do_predict=True)
    scores, records = read_json(folder / "eval_results.json"), read_predictions(folder)
    assert scores.pop("loss") == pytest.approx(before[0].pop("loss"), rel=1e-4)
    assert scores == before[0]
    for record in before[1]:  # batches of another size round the last digit of confidences differently
        for entity in record["entities"]:
            entity["confidence"] = pytest.approx(entity["confidence"], abs=2e-6)
    assert records == before[1]


def _copy(run: FinishedRun, home: Path) -> Path:
    folder = home / "copy"
    shutil.copytree(run.folder, folder)
    return folder


@all_runs
def test_applying_a_run_leaves_its_training_record_alone(run: FinishedRun, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path)
    before = {name: (folder / name).read_text() for name in ("training_args.json", "environment.json")}
    call_script(run.script, **{**run.options, "output_dir": folder, "do_eval": True})
    assert {name: (folder / name).read_text() for name in before} == before


@all_runs
def test_a_trained_folder_is_not_overwritten_unasked(run: FinishedRun) -> None:
    before = (run.folder / "model.safetensors").stat().st_mtime_ns
    message = error_of(run.script, **run.options, do_train=True, from_scratch=True)
    assert f"{run.folder} holds a trained model" in message
    assert "--overwrite_output_dir" in message
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == before


def test_an_overwritten_run_leaves_nothing_of_the_old_one(options: dict[str, Any]) -> None:
    folder = Path(options["output_dir"])
    call_script("run_ner_crf", **options, do_train=True, save_steps=1, do_eval=True)
    assert (folder / "checkpoint-1").is_dir()
    changed = {**options, "max_steps": 3, "overwrite_output_dir": True}
    call_script("run_ner_crf", **changed, do_train=True, log_loss_steps=1)
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-best"}
    assert list(read_scalars(folder / "tensorboard")["train/loss"]) == [1, 2, 3]
    assert not (folder / "eval_results.json").exists()  # it was of other weights


def test_an_unlabelled_test_split_is_predicted(options: dict[str, Any], corpus_dir: Path) -> None:
    lines = [line.partition(" ")[0] for line in (corpus_dir / "test.txt").read_text("utf-8").splitlines()]
    (corpus_dir / "test.txt").write_text("\n".join(lines) + "\n", "utf-8")
    call_script("run_ner_crf", **options, do_train=True, do_predict=True)
    assert len(read_predictions(Path(options["output_dir"]))) == 20
    assert not Path(options["output_dir"], "test_results.json").exists()


def test_a_config_file_runs_the_script(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**options, "do_train": True, "max_steps": 50}))
    call_script("run_ner_softmax", config_file=path, max_steps=1)
    assert read_json(Path(options["output_dir"], "training_args.json"))["max_steps"] == 1


def test_the_written_arguments_repeat_the_run(crf_run: FinishedRun, tmp_path: Path) -> None:
    again = tmp_path / "again"
    only_training = {"do_eval": False, "do_predict": False, "save_steps": 0}
    call_script("run_ner_crf", config_file=crf_run.folder / "training_args.json", output_dir=again, **only_training)
    first, second = (load_file(folder / "model.safetensors") for folder in (crf_run.folder, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing to do: add --do_train, --do_eval or --do_predict"),
        ({"do_train": True, "task_name": ""}, "--task_name must be given"),
        ({"do_train": True, "output_dir": ""}, "--output_dir must be given"),
        ({"do_train": True, "model_name_or_path": ""}, "--model_name_or_path must be given"),
        ({"do_train": True, "data_dir": ""}, "--data_dir must be given"),
        ({"do_train": True, "data_dir": "nowhere"}, "nowhere: there is no such data folder"),
        ({"do_train": True, "from_scratch": False}, "--from_scratch"),
        ({"do_eval": True}, "no such folder:"),
        ({"do_train": True, "fp16": True}, "--fp16 needs a GPU"),
        ({"do_train": True, "local_rank": 0}, "start several processes with torchrun"),
        ({"do_train": True, "model_type": "roberta"}, "--model_type roberta"),
        ({"do_train": True, "do_adv": True, "adv_name": "wte"}, "'wte'"),
    ],
)
def test_what_cannot_be_run_ends_with_a_message(options: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    found = error_of("run_ner_crf", **{**options, **changes})
    assert found.startswith("run_ner_crf.py: error: ")
    assert message in found


def test_a_missing_file_is_named(options: dict[str, Any]) -> None:
    message = error_of("run_ner_crf", **options, do_train=True, train_file="nowhere.txt")
    assert "nowhere.txt: there is no such file" in message


def test_bad_data_is_named_with_its_line(options: dict[str, Any], corpus_dir: Path) -> None:
    (corpus_dir / "dev.txt").write_text("anna B-PER\nmet\n", "utf-8")
    assert f"{corpus_dir / 'dev.txt'}:2: " in error_of("run_ner_crf", **options, do_train=True)


def test_a_label_that_the_model_does_not_know_is_named_with_its_line(crf_run: FinishedRun, tmp_path: Path) -> None:
    dev = tmp_path / "dev.txt"
    dev.write_text("anna B-PER\nfelt O\nsick B-ILL\n", "utf-8")
    message = error_of("run_ner_crf", **crf_run.options, do_eval=True, dev_file=dev)
    assert f"{dev}:3: " in message
    assert "'ILL' is not among the labels (LOC, ORG, PER)" in message


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_in_a_process_of_its_own(script: str, options: dict[str, Any]) -> None:
    done = start_script(f"{script}.py", **options, do_train=True, do_eval=True, do_predict=True)
    assert done.returncode == 0, done.stderr
    assert "micro" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert "\r" not in done.stderr
    assert len(read_predictions(Path(options["output_dir"]))) == 20


@pytest.mark.slow
def test_an_error_is_one_line_and_no_traceback(options: dict[str, Any]) -> None:
    done = start_script("run_ner_crf.py", **{**options, "from_scratch": False, "do_train": True})
    assert done.returncode == 1
    assert "run_ner_crf.py: error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("split", "flag"), [("dev", "do_eval"), ("test", "do_predict")])
def test_a_split_that_is_needed_later_is_missed_at_once(
    options: dict[str, Any], corpus_dir: Path, split: str, flag: str
) -> None:
    (corpus_dir / f"{split}.txt").unlink()
    assert f"no file for the {split} split" in error_of("run_ner_crf", **{**options, flag: True})
    assert not Path(options["output_dir"], "model.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"do_train": True, "eval_all_checkpoints": True}, "--eval_all_checkpoints has no effect without --do_eval"),
        ({"do_train": True, "predict_checkpoints": "all"}, "--predict_checkpoints all has no effect without"),
        ({"do_train": True, "shard_optimizer": True}, "--shard_optimizer has no effect in a single process"),
    ],
)
def test_what_has_no_effect_in_this_run_is_said(options: dict[str, Any], flags: dict[str, Any], said: str) -> None:
    start_run(crf(**options, **flags).settings, BertCrfForNer)
    assert said in Path(options["output_dir"], "run.log").read_text("utf-8")


def test_settings_of_a_resumed_training_score_its_model(crf_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(crf_run.folder, tmp_path / "run")
    settings = crf(**crf_run.options | {"output_dir": str(tmp_path / "run")}).settings
    start_run(settings.replace(do_eval=True, resume_from_checkpoint="auto"), BertCrfForNer)
    log = (tmp_path / "run" / "run.log").read_text("utf-8")
    assert "--resume_from_checkpoint has no effect without --do_train" in log


def test_a_run_without_checkpoints_says_that_there_are_none_to_score(options: dict[str, Any]) -> None:
    wanted = {"do_train": True, "do_eval": True, "eval_all_checkpoints": True, "evaluate_during_training": False}
    call_script("run_ner_crf", **options, **wanted)
    assert "has no checkpoints, only the final model" in Path(options["output_dir"], "run.log").read_text("utf-8")


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(crf_run: FinishedRun, tmp_path: Path) -> None:
    options = {**crf_run.options, "output_dir": str(_copy(crf_run, tmp_path))}
    message = error_of("run_ner_crf", **options, do_predict=True, predict_checkpoints=77)
    assert "has no checkpoint-77; there are checkpoint-" in message


def test_a_lone_surrogate_is_replaced_and_predicted(options: dict[str, Any], corpus_dir: Path) -> None:
    (corpus_dir / "test.txt").unlink()
    (corpus_dir / "test.jsonl").write_text('{"tokens": ["anna", "\\ud83d", "left"]}\n', "utf-8")
    call_script("run_ner_crf", **{**options, "do_train": True, "do_predict": True, "max_steps": 1})
    (record,) = read_predictions(Path(options["output_dir"]))
    assert record["tokens"] == ["anna", "\ufffd", "left"]


def test_an_earlier_run_is_left_alone_where_the_data_cannot_be_found(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = _copy(crf_run, tmp_path)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    changes = {"output_dir": str(folder), "data_dir": str(tmp_path / "nowhere"), "overwrite_output_dir": True}
    assert "there is no such data folder" in error_of("run_ner_crf", **{**crf_run.options, **changes, "do_train": True})
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


def test_files_may_be_named_outright(options: dict[str, Any], corpus_dir: Path) -> None:
    named = {}
    for split in ("train", "dev", "test"):
        named[f"{split}_file"] = str((corpus_dir / f"{split}.txt").rename(corpus_dir / f"part-{split}.of-mine"))
    actions = {"data_dir": "", "do_train": True, "do_eval": True, "do_predict": True, "max_steps": 1}
    call_script("run_ner_crf", **{**options, **named, **actions})
    assert len(read_predictions(Path(options["output_dir"]))) == 20


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_events_are_written_where_none_are_wanted(script: str, options: dict[str, Any]) -> None:
    actions = {"do_train": True, "do_eval": True, "do_predict": True, "eval_all_checkpoints": True, "save_steps": 1}
    call_script(script, **options, **actions, report_to="none")
    folder = Path(options["output_dir"])
    assert (folder / "test_results.json").is_file()
    assert not [path for path in folder.rglob("*") if "tensorboard" in path.name or "tfevents" in path.name]
