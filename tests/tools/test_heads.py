"""A folder is applied with the head that it holds, or refused by name, by everything that loads one."""

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from analysis.report.run_data import read_run
from inference.export_onnx import export
from inference.predictor import NerPredictor
from lightning_runs.glue_model import load_classifier_and_tokenizer
from models import BertCrfForNer, BertSoftmaxForNer
from tests.lightning_runs.lightning_runs import call_lightning
from tests.tools.runs import FinishedRun, call_script, edit_json, read_predictions, replace
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.settings import Settings


class ReversedHead(BertSoftmaxForNer):
    """A head of the user's own, which finds the worst tags."""

    def decode(self, logits: Tensor, word_mask: Tensor) -> Tensor:
        return logits.argmin(-1)


def copied(run: FinishedRun, folder: Path, checkpoints: bool = False) -> Path:
    return shutil.copytree(run.folder, folder, ignore=None if checkpoints else shutil.ignore_patterns("checkpoint-*"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those of the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".run.lock")]
    return {str(path): path.read_bytes() for path in files}


def refusal(script: str, **options: Any) -> str:
    """What a script ends with."""
    with pytest.raises(SystemExit) as end:
        call_script(script, **options)
    return str(end.value)


@pytest.mark.parametrize(
    "actions",
    [
        {"do_eval": True, "do_predict": True},
        {"do_eval": True, "eval_all_checkpoints": True},
        {"do_train": True, "from_scratch": True, "resume_from_checkpoint": "auto"},
    ],
)
@pytest.mark.parametrize(("other", "found"), [("softmax", "crf"), ("crf", "softmax")])
def test_a_script_refuses_the_run_of_another_head_before_it_writes(
    request: pytest.FixtureRequest, tmp_path: Path, other: str, found: str, actions: dict[str, Any]
) -> None:
    run: FinishedRun = request.getfixturevalue(f"{found}_run")
    folder = copied(run, tmp_path / "run", checkpoints=True)
    torch.save({}, folder / "checkpoint-32" / "training_state.pt")
    before = contents(folder)
    message = refusal(f"run_ner_{other}", **{**run.options, **actions, "output_dir": folder})
    names = {"crf": "BertCrfForNer", "softmax": "BertSoftmaxForNer"}
    assert f"holds the head {names[found]}, not {names[other]}; use run_ner_{found}.py" in message
    assert contents(folder) == before


def test_a_checkpoint_of_another_head_is_refused_before_anything_is_scored(
    crf_run: FinishedRun, softmax_run: FinishedRun, tmp_path: Path
) -> None:
    folder = copied(crf_run, tmp_path / "run")
    shutil.copytree(softmax_run.folder / "checkpoint-16", folder / "checkpoint-16")
    results = (folder / "eval_results.json").stat().st_mtime_ns
    options = {**crf_run.options, "do_eval": True, "eval_all_checkpoints": True, "output_dir": folder}
    assert "checkpoint-16 holds the head BertSoftmaxForNer" in refusal("run_ner_crf", **options)
    assert (folder / "eval_results.json").stat().st_mtime_ns == results


def by_script(folder: Path) -> None:
    options = {"data_dir": folder.parent / "corpus", "task_name": "tiny", "do_eval": True, "no_cuda": True}
    raise ValueError(refusal("run_ner_softmax", output_dir=folder, **options))


def by_lightning(folder: Path) -> None:
    options = {"data_dir": folder.parent / "corpus", "output_dir": folder.parent / "lightning", "do_predict": True}
    with pytest.raises(SystemExit) as end:
        call_lightning("run_pl_ner", model_name_or_path=folder, **options)
    raise ValueError(str(end.value))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            "MyHead",
            r"holds the head MyHead, which is not built in \(BertSoftmaxForNer, BertCrfForNer, .*--head module:MyHead",
        ),
        ("BertForSequenceClassification", r"holds a text classifier .*run_pl_glue\.py"),
        ("BertForMaskedLM", r"holds an encoder without a head \(BertForMaskedLM\); train it with --do_train"),
    ],
)
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda folder: NerPredictor.load(folder, "cpu"), id="predictor"),
        pytest.param(lambda folder: export(folder, folder / "model.onnx"), id="export"),
        pytest.param(read_run, id="report"),
        pytest.param(by_script, id="script"),
        pytest.param(by_lightning, id="Lightning"),
    ],
)
def test_what_is_no_known_head_is_refused_by_name(
    softmax_run: FinishedRun, tmp_path: Path, load: Callable[[Path], object], architecture: str, message: str
) -> None:
    folder = copied(softmax_run, tmp_path / "run")
    shutil.copytree(softmax_run.options["data_dir"], tmp_path / "corpus")
    edit_json(folder / "config.json", architectures=[architecture])
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_head_of_the_users_own_is_loaded_as_itself(softmax_run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(softmax_run, tmp_path / "run")
    edit_json(folder / "config.json", architectures=["ReversedHead"])
    predictor = NerPredictor.load(folder, "cpu")
    assert type(predictor.model) is ReversedHead
    assert "holds the head ReversedHead, not BertSoftmaxForNer" in refusal(
        "run_ner_softmax", **{**softmax_run.options, "do_eval": True, "output_dir": folder}
    )


def test_a_folder_never_makes_the_program_import_code(
    softmax_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its config names; the user's --head does, and must be the head of the folder."""
    (tmp_path / "their_head.py").write_text(
        "from models import BertSoftmaxForNer\nclass TheirHead(BertSoftmaxForNer): pass\n"
        "class OtherHead(BertSoftmaxForNer): pass\ndef loss(logits, labels): raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = copied(softmax_run, tmp_path / "run")
    named = {"head": "their_head:TheirHead", "head_source": "their_head:TheirHead", "tag_loss": "their_head:loss"}
    classes = {"AutoModel": "their_head.TheirHead", "AutoConfig": "their_head.TheirHead"}
    edit_json(folder / "config.json", architectures=["TheirHead"], auto_map=classes, **named)
    loads: list[Callable[[], object]] = [
        lambda: NerPredictor.load(folder, "cpu"),
        lambda: export(folder, folder / "model.onnx"),
        lambda: read_run(folder),
        lambda: call_script("run_ner_softmax", **{**softmax_run.options, "do_eval": True, "output_dir": folder}),
    ]
    for load in loads:
        with pytest.raises((ValueError, SystemExit), match=r"if you trust its code, .* --head their_head:TheirHead"):
            load()
    edit_json(folder / "config.json", architectures=["BertSoftmaxForNer"])
    NerPredictor.load(folder, "cpu")(["anna met bob"])  # which needs no loss
    assert "their_head" not in sys.modules
    edit_json(folder / "config.json", architectures=["TheirHead"])
    predictor = NerPredictor.load(folder, "cpu", head="their_head:TheirHead")
    assert type(predictor.model).__name__ == "TheirHead"
    assert read_run(folder, "their_head:TheirHead").head == "softmax"
    with pytest.raises(ValueError, match="holds the head TheirHead, not OtherHead"):
        NerPredictor.load(folder, "cpu", head="their_head:OtherHead")
    with pytest.raises(ValueError, match="--head their_head:loss: not a subclass"):
        NerPredictor.load(folder, "cpu", head="their_head:loss")


@pytest.mark.parametrize("head", ["crf", "softmax"])
def test_an_old_folder_shows_its_head_by_its_weights(
    crf_run: FinishedRun, softmax_run: FinishedRun, tmp_path: Path, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = {"crf": crf_run, "softmax": softmax_run}[head]  # both are made before caplog listens: a run resets logging
    folder = copied(run, tmp_path / "run")
    edit_json(folder / "config.json", architectures=None)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with caplog.at_level(logging.INFO):
        predictor = NerPredictor.load(folder, "cpu")
    assert "does not name the head; using Bert" in caplog.text
    records = read_predictions(run.folder)[:10]
    found = predictor([record["text"] for record in records])
    assert [[one.type for one in entities] for entities in found] == [
        [one["type"] for one in record["entities"]] for record in records
    ]
    (folder / "pytorch_model.bin").unlink()
    save_file({**weights, "lstm.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not name the head .* its weights are .*lstm"):
        NerPredictor.load(folder, "cpu")


def test_training_takes_the_encoder_of_another_head_and_says_so(
    crf_args: Run, softmax_run: FinishedRun, caplog: pytest.LogCaptureFixture
) -> None:
    args = replace(crf_args, from_scratch=False, model_name_or_path=str(softmax_run.folder))
    with caplog.at_level(logging.INFO):
        _, model, _ = load_model_and_tokenizer(args, BertCrfForNer)
    assert "using its encoder with a new head BertCrfForNer" in caplog.text
    weights, now = load_file(softmax_run.folder / "model.safetensors"), model.state_dict()
    same = {name for name in weights if torch.equal(weights[name], now[name])}
    assert weights.keys() - same == {"classifier.weight", "classifier.bias"}


def test_taggers_and_classifiers_of_texts_do_not_pass_for_one_another(
    crf_args: Run, encoder: Path, bert: PreTrainedTokenizerBase, crf_run: FinishedRun, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(encoder, num_labels=10)  # as many as the corpus has tags
    classifier = AutoModelForSequenceClassification.from_config(config)
    classifier.save_pretrained(tmp_path / "classifier")
    bert.save_pretrained(tmp_path / "classifier")
    args = replace(crf_args, from_scratch=False, model_name_or_path=str(tmp_path / "classifier"))
    _, tagger, _ = load_model_and_tokenizer(args, BertCrfForNer)
    former = classifier.get_parameter("classifier.weight")
    assert tagger.classifier.weight.shape == former.shape
    assert not torch.equal(tagger.classifier.weight, former)

    run = Run.of(Settings.of(model_name_or_path=str(crf_run.folder), do_train=True))
    classes = [str(number) for number in range(10)]
    weights = load_file(crf_run.folder / "model.safetensors")["classifier.weight"]
    new, _ = load_classifier_and_tokenizer(run, classes)
    assert new.get_parameter("classifier.weight").shape == weights.shape
    assert not torch.equal(new.get_parameter("classifier.weight"), weights)
    with pytest.raises(ValueError, match="holds BertCrfForNer, not a text classifier"):
        load_classifier_and_tokenizer(run.applying(), classes, str(crf_run.folder))
