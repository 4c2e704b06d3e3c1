"""Encoders in bf16 and int8: their weights, and that they find the same entities."""

import pytest
import torch

from inference.predictor import NerPredictor, set_encoder_precision
from models import BertCrfForNer
from tests.tools.runs import FinishedRun, read_predictions


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_entities_stay_nearly_the_same(run_name: str, dtype: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    texts = [record["text"] for record in read_predictions(run.folder)]
    exact, light = (
        {(number, *entity[:3]) for number, found in enumerate(predictor(texts)) for entity in found}
        for predictor in (NerPredictor.load(run.folder, "cpu"), NerPredictor.load(run.folder, "cpu", dtype=dtype))
    )
    assert len(exact & light) > 0.9 * max(len(exact), len(light)) > 10


def test_the_head_and_the_crf_stay_in_float32(crf_run: FinishedRun) -> None:
    model = NerPredictor.load(crf_run.folder, "cpu", dtype="bf16").model
    assert isinstance(model, BertCrfForNer)
    assert {weight.dtype for weight in model.get_submodule("bert").parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in [*model.classifier.parameters(), *model.crf.parameters()]} == {torch.float32}


def test_int8_makes_linear_layers_of_the_encoder_a_quarter(crf_run: FinishedRun) -> None:
    model = NerPredictor.load(crf_run.folder, "cpu", dtype="int8").model
    assert not any(isinstance(module, torch.nn.Linear) for module in model.get_submodule("bert").modules())
    assert isinstance(model.classifier, torch.nn.Linear)
    weight = model.get_submodule("bert.encoder.layer.0.intermediate.dense").weight()
    assert weight.element_size() == 1


def test_int8_is_refused_on_a_gpu(crf_run: FinishedRun) -> None:
    model = NerPredictor.load(crf_run.folder, "cpu").model
    with pytest.raises(ValueError, match="int8 runs on a CPU, not on cuda"):
        set_encoder_precision(model, "int8", torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_gpu_finds_what_a_cpu_finds(crf_run: FinishedRun, dtype: str) -> None:
    texts = [record["text"] for record in read_predictions(crf_run.folder)]
    on_cpu, on_gpu = (NerPredictor.load(crf_run.folder, device, dtype)(texts) for device in ("cpu", "cuda"))
    same = sum([e[:3] for e in left] == [e[:3] for e in right] for left, right in zip(on_cpu, on_gpu, strict=True))
    assert same >= 0.9 * len(texts)
