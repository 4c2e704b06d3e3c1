"""What the folder of a run is allowed to be and comes to hold."""

import json
import sys
from pathlib import Path

import pytest
import torch

import tools.distributed
from common.run_files import RunFolder
from tests.tools.runs import prepared, read_json, replace
from tools.run import Run
from tools.run_folder import prepare_folder, save_environment, save_model_folder, write_json


def prepare(run: Run) -> None:
    prepare_folder(run.folder, run.settings.actions)


@pytest.fixture
def trained(crf_args: Run) -> Path:
    """Looks as an earlier run left it."""
    folder = crf_args.folder.path
    for name in ("config.json", "checkpoint-8/config.json", "checkpoint-best/config.json", "tensorboard/events.1"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


def test_the_folder_is_made_with_its_parents(crf_args: Run, tmp_path: Path) -> None:
    prepare(replace(crf_args, output_dir=str(tmp_path / "a" / "b")))
    assert (tmp_path / "a" / "b").is_dir()


def test_training_does_not_write_over_an_earlier_run(crf_args: Run, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a trained model; .* --overwrite_output_dir"):
        prepare(crf_args)
    assert (trained / "checkpoint-8").is_dir()


@pytest.fixture
def interrupted(crf_args: Run, trained: Path) -> Path:
    """Looks as a training left it that never came to its end."""
    (trained / "config.json").unlink()
    return trained


@pytest.mark.parametrize("named", ["", "elsewhere/checkpoint-3"])
def test_checkpoints_of_an_interrupted_run_are_not_cleared_away_unasked(
    crf_args: Run, interrupted: Path, named: str
) -> None:
    with pytest.raises(ValueError, match=r"holds checkpoints; .* or --resume_from_checkpoint auto"):
        prepare(replace(crf_args, resume_from_checkpoint=named))
    assert {path.name for path in RunFolder(interrupted).checkpoints()} == {"checkpoint-8", "checkpoint-best"}


def test_they_are_where_auto_found_none_to_go_on_from(crf_args: Run, interrupted: Path) -> None:
    prepare(replace(crf_args, resume_from_checkpoint="auto"))
    assert not RunFolder(interrupted).checkpoints()


def test_an_overwrite_clears_checkpoints_and_events(crf_args: Run, trained: Path) -> None:
    prepare(replace(crf_args, overwrite_output_dir=True))
    assert not list(trained.glob("checkpoint-*"))
    assert not (trained / "tensorboard").exists()


def test_an_earlier_run_may_be_applied(crf_args: Run, trained: Path) -> None:
    prepare(replace(crf_args, do_train=False, do_eval=True, overwrite_output_dir=True))
    assert {path.name for path in RunFolder(trained).checkpoints()} == {"checkpoint-8", "checkpoint-best"}


def test_other_ranks_make_no_folder(crf_args: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.distributed, "is_main", lambda: False)
    prepare(crf_args)
    assert not crf_args.folder.path.exists()


def test_checkpoints_come_in_the_order_of_their_steps_and_the_best_last(tmp_path: Path) -> None:
    for name in ("checkpoint-best", "checkpoint-100", "checkpoint-20", "checkpoint-3", "checkpoint-broken"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-broken":
            (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "checkpoint-5").write_text("a file")
    assert [path.name for path in RunFolder(tmp_path).checkpoints()] == [
        "checkpoint-3",
        "checkpoint-20",
        "checkpoint-100",
        "checkpoint-best",
    ]


def test_a_model_folder_holds_weights_config_tokenizer_and_arguments(crf_args: Run, tmp_path: Path) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    folder = tmp_path / "a" / "model"
    save_model_folder(folder, crf_args.settings, model, tokenizer)
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training_args.json"} <= names
    assert read_json(folder / "training_args.json") == crf_args.settings.flat()


def test_the_environment_names_versions_machine_and_command(
    crf_args: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/run_ner_crf.py", "--seed=1"])
    save_environment(RunFolder(tmp_path), crf_args.device)
    environment = read_json(tmp_path / "environment.json")
    assert environment["command"] == ["run_ner_crf.py", "--seed=1"]
    assert environment["python"] == sys.version.split()[0]
    assert environment["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"transformers", "tokenizers", "numpy", "seqeval", "pytorch-crf"} <= environment["packages"].keys()
    assert environment["threads"] == torch.get_num_threads()
    assert environment["device"]


def test_json_is_readable_by_people(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "北京"})
    text = (tmp_path / "x.json").read_text("utf-8")
    assert text == '{\n  "name": "北京"\n}\n'
    assert json.loads(text) == {"name": "北京"}
