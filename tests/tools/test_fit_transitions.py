"""Transition biases fitted on dev, and the choice of the decoding wherever a model is loaded."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from common.tag_schemes import MARKUPS, tag_pairs, tag_set
from common.transition_biases import KINDS, biases_file, read_biases
from inference.predictor import NerPredictor
from tests.tools.runs import FinishedRun, call_script, edit_json, read_json
from tools.fit_transitions import fit_transitions, fitted_biases

TEXTS = [["the", "man", "met", "dan", "lee", "near", "new", "york"], ["acme", "left", "paris"]]


@pytest.fixture
def copy(softmax_run: FinishedRun, tmp_path: Path) -> Path:
    return shutil.copytree(softmax_run.folder, tmp_path / "run")


def test_the_search_climbs_to_the_best_biases() -> None:
    best = dict(zip(KINDS, (1.5, -2.25, 0.0, 0.5, 0.0, -6.0), strict=True))
    asked = list[dict[str, float]]()

    def score(biases: dict[str, float]) -> float:
        asked.append(biases)
        return -sum((biases[kind] - best[kind]) ** 2 for kind in KINDS if kind != "inside_to_end")

    assert fitted_biases(score) == best | {"inside_to_end": 0.0}  # what has no effect stays
    assert len(asked) < 250


def test_the_choice_is_kept_in_the_folder_and_predicts(copy: Path, softmax_run: FinishedRun) -> None:
    best = fit_transitions(copy)
    config = read_json(copy / "config.json")
    assert (config["tag_decoding"], config.get("transition_biases", {})) == (best.decoding, best.biases)
    assert (copy / "viterbi_calibration.json").is_file() == bool(best.biases)
    by_fit = read_json(copy / "eval_results.json")
    assert by_fit["strict_f1"] == pytest.approx(best.strict_f1)
    assert best.strict_f1 >= read_json(softmax_run.folder / "eval_results.json")["strict_f1"]
    call_script("run_ner_softmax", **softmax_run.options | {"output_dir": str(copy)}, do_eval=True)
    assert read_json(copy / "eval_results.json") == by_fit
    assert NerPredictor.load(copy, "cpu").model.config.tag_decoding == best.decoding


def test_biases_come_from_a_file_too(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "biases.json").write_text(json.dumps(biases_file({"background_to_start": 9.0})), "utf-8")
    biases = str(tmp_path / "biases.json")
    plain, eager = (NerPredictor.load(copy, "cpu", decode="viterbi", transition_biases=one) for one in ("", biases))
    assert eager.model.config.transition_biases == read_biases(tmp_path / "biases.json")
    counts = [sum(tag != "O" for tags in one.tag_words(TEXTS) for tag in tags) for one in (plain, eager)]
    assert counts[0] < counts[1]


def test_other_heads_and_folders_without_data_are_refused(crf_run: FinishedRun, copy: Path) -> None:
    with pytest.raises(ValueError, match="BertCrfForNer: only softmax heads"):
        fit_transitions(crf_run.folder)
    (copy / "training_args.json").unlink()
    with pytest.raises(ValueError, match=r"has no training_args\.json, .* add --task_name and --data_dir"):
        fit_transitions(copy)


@pytest.mark.parametrize("labels", ["bios", "bioes", "io"])
def test_a_token_classifier_of_another_project_can_decode_legal_sequences(labels: str, copy: Path) -> None:
    config = read_json(copy / "config.json")
    ours = (
        "tag_markup",
        "tag_loss",
        "tag_decoding",
        "eval_max_seq_length",
        "window_overlap",
        "kept_words",
        "word_unit",
    )
    names = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    types = sorted({name.partition("-")[2] for name in names} - {""})
    wanted = {
        "bios": names,
        "bioes": tag_set(types, MARKUPS["bioes"]),
        "io": ["O", *(f"I-{name}" for name in types)],
    }[labels]
    changes = {"id2label": dict(enumerate(wanted)), "label2id": {name: n for n, name in enumerate(wanted)}}
    edit_json(copy / "config.json", architectures=["BertForTokenClassification"], **dict.fromkeys(ours), **changes)
    set_outputs(copy, len(wanted))
    greedy, legal = (NerPredictor.load(copy, "cpu", decode=decode) for decode in ("", "viterbi"))
    assert greedy.model.config.to_dict().get("tag_decoding") is None
    found = legal.tag_words(TEXTS)
    scheme = MARKUPS[legal.model.markup]
    assert all(scheme.allows(*pair) for tags in found for pair in tag_pairs(tags))
    if labels == "io":
        assert found == greedy.tag_words(TEXTS)


def set_outputs(folder: Path, count: int) -> None:
    """Gives a saved head this many random labels."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    weights["classifier.weight"] = torch.randn(count, weights["classifier.weight"].size(1))
    weights["classifier.bias"] = torch.zeros(count)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_choice_that_differs_from_the_folder_is_reported(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        predictor = NerPredictor.load(copy, "cpu", decode="viterbi")
    assert "--decode viterbi applies to this run only: the model was evaluated with argmax" in caplog.text
    assert all(
        MARKUPS[predictor.model.markup].allows(*pair) for tags in predictor.tag_words(TEXTS) for pair in tag_pairs(tags)
    )


def test_a_choice_that_cannot_be_made_is_refused(crf_run: FinishedRun, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--decode viterbi: BertCrfForNer has no such option.*head softmax"):
        NerPredictor.load(crf_run.folder, "cpu", decode="viterbi")
    (tmp_path / "biases.json").write_text(json.dumps(biases_file({})), "utf-8")
    with pytest.raises(ValueError, match=r"--transition_biases .* has no effect without --decode viterbi"):
        NerPredictor.load(copy, "cpu", transition_biases=str(tmp_path / "biases.json"))
