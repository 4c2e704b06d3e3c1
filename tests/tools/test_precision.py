"""Which precision is used, and what is refused."""

import sys
import types
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from callbacks import Callback, TrainState
from tests.tools.runs import crf, fit
from tools.distributed import setup_devices
from tools.precision import GradientStep, Precision, choose_precision
from tools.run import Run
from tools.settings import MachineSettings

GPU = torch.device("cuda")
CPU = Precision(torch.device("cpu"))


def half(backend: str = "auto", device: torch.device = GPU, **others: Any) -> Precision:
    return choose_precision(MachineSettings(fp16=True, fp16_backend=backend, **others), device)


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """An apex of the years in which it had amp."""
    module = types.ModuleType("apex")
    amp = MagicMock()
    amp.initialize.side_effect = lambda model, optimizer, opt_level: (model, optimizer)
    amp.master_params.side_effect = lambda optimizer: [p for group in optimizer.param_groups for p in group["params"]]
    amp.scale_loss.return_value.__enter__.side_effect = lambda: amp.scale_loss.call_args.args[0] * 4
    module.amp = amp  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "apex", module)
    return amp


@pytest.fixture
def no_apex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", None)


def product_dtype(args: Run) -> torch.dtype:
    with args.precision.autocast():
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_full_precision_is_the_default() -> None:
    assert product_dtype(crf()) == torch.float32


def test_bf16_runs_on_a_cpu() -> None:
    assert product_dtype(crf(bf16=True)) == torch.bfloat16


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="--fp16 needs a GPU; on a CPU use --bf16"):
        half(device=torch.device("cpu"))


@pytest.mark.usefixtures("apex")
def test_apex_does_not_see_a_sharded_optimizer() -> None:
    with pytest.raises(ValueError, match=r"--shard_optimizer does not .* apex\.amp; add --fp16_backend native"):
        half(shard_optimizer=True)


@pytest.mark.usefixtures("no_apex")
def test_without_apex_torchs_own_is_used() -> None:
    assert not half().apex
    assert not half("native").apex
    with pytest.raises(ValueError, match=r"apex\.amp is not installed"):
        half("apex")


def test_an_apex_without_amp_is_no_apex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", types.ModuleType("apex"))
    assert not half().apex
    with pytest.raises(ValueError, match="NVIDIA removed it"):
        half("apex")


@pytest.mark.usefixtures("apex")
def test_an_apex_with_amp_is_used_unless_torchs_own_is_asked_for() -> None:
    assert half().apex
    assert half("apex").apex
    assert not half("native").apex
    assert not CPU.apex


def test_apex_scales_the_loss_at_the_chosen_level(apex: MagicMock) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = GradientStep(half(fp16_opt_level="O2"), model, optimizer)
    assert apex.initialize.call_args.kwargs["opt_level"] == "O2"
    step.backward(model(torch.ones(1, 1)).sum())
    assert model.weight.grad is not None
    assert model.weight.grad.item() == 4.0


@pytest.mark.parametrize(("max_norm", "expected"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_a_step_moves_along_the_clipped_sum_of_gradients(max_norm: float, expected: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    step = GradientStep(CPU, model, torch.optim.SGD(model.parameters(), lr=1.0))
    step.backward(model(torch.tensor([[3.0, 0.0]])).sum())
    step.backward(model(torch.tensor([[0.0, 4.0]])).sum())
    step.clip(max_norm)
    step.step()
    assert (model.weight - before).norm().item() == pytest.approx(expected, rel=1e-4)
    assert model.weight.grad is None


def test_tf32_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="--tf32 needs a GPU"):
        crf(tf32=True)


def test_tf32_is_set_for_products_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    choose_precision(MachineSettings(tf32=True), GPU)
    assert chosen == ["high"]


def test_the_loss_scale_goes_on_after_an_interruption(apex: MagicMock) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    apex.state_dict.return_value = {"loss_scaler0": {"loss_scale": 8.0}}
    step = GradientStep(half(), model, optimizer)
    step.load_state_dict(step.state_dict())
    apex.load_state_dict.assert_called_once_with({"loss_scaler0": {"loss_scale": 8.0}})
    with pytest.raises(ValueError, match="with the other --fp16_backend"):
        GradientStep(CPU, model, optimizer).load_state_dict(step.state_dict())


def test_a_step_tells_the_norm_before_clipping() -> None:
    model = nn.Linear(2, 1, bias=False)
    step = GradientStep(CPU, model, torch.optim.SGD(model.parameters(), lr=1.0))
    step.backward((model.weight * torch.tensor([[3.0, 4.0]])).sum())
    assert step.clip(1.0).item() == 5.0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", ""])
def test_a_gpu_learns_in_every_precision(precision: str, crf_args: Run) -> None:
    chosen: dict[str, dict[str, Any]] = {"": {}, "fp16": {"fp16": True, "fp16_backend": "native"}}
    settings = crf_args.settings.replace(no_cuda=False, evaluate_during_training=False, num_train_epochs=4.0)
    settings = settings.replace(**chosen.get(precision, {precision: True}))
    _, loss, _ = fit(Run.of(settings, *setup_devices(settings.machine)))
    assert loss < 1.0


class WatchSynchronisation(Callback):
    """Makes every operation between two logs that waits for the GPU an error."""

    def on_step(self, state: TrainState) -> None:
        torch.cuda.set_sync_debug_mode("default" if state.is_due(20) else "error")

    def close(self) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"bf16": True}])
def test_a_step_does_not_wait_for_the_gpu(options: dict[str, Any], crf_args: Run) -> None:
    watch = f"{__name__}:{WatchSynchronisation.__name__}"
    settings = crf_args.settings.replace(no_cuda=False, evaluate_during_training=False, max_steps=45, callback=watch)
    steps, _, _ = fit(Run.of(settings.replace(**options), *setup_devices(settings.machine)))
    assert steps == 45
