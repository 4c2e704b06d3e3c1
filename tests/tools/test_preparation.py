"""Recomputed layers and compiled models compute what the others compute."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models import BertCrfForNer
from tests.models.families import FAMILIES, collate, random_rows, tiny_tagger
from tests.tools.runs import fit, largest_difference, replace, split_of
from tools.evaluate import score_dataset
from tools.loading import compile_model
from tools.optimizer import checkpoint_layers
from tools.run import Run
from tools.settings import MachineSettings

UNABLE = ("albert", "xlnet")


def loss_and_gradients(family: str, recomputed: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model = tiny_tagger(BertCrfForNer, family)
    checkpoint_layers(MachineSettings(gradient_checkpointing=recomputed), model)
    torch.manual_seed(0)
    loss = model.train()(**collate(random_rows([12, 7]), model.config)).loss
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in UNABLE])
def test_recomputed_layers_give_the_same_gradients_dropout_included(family: str) -> None:
    kept, recomputed = (loss_and_gradients(family, chosen) for chosen in (False, True))
    assert torch.equal(recomputed[0], kept[0])
    assert largest_difference(recomputed[1], kept[1]) < 1e-6


@pytest.mark.parametrize("family", UNABLE)
def test_a_family_that_cannot_recompute_layers_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match=f"--gradient_checkpointing: .* for {family}"):
        loss_and_gradients(family, recomputed=True)


def test_layers_are_recomputed() -> None:
    def passes(chosen: bool) -> int:
        model = tiny_tagger(BertCrfForNer).train()
        checkpoint_layers(MachineSettings(gradient_checkpointing=chosen), model)
        seen: list[object] = []
        attention = next(module for name, module in model.named_modules() if name.endswith("layer.0.attention.self"))
        attention.register_forward_hook(lambda *_: seen.append(None))
        model(**collate(random_rows([12]), model.config)).loss.backward()
        return len(seen)

    assert (passes(False), passes(True)) == (1, 2)


def test_a_compiled_training_is_the_same_and_weights_keep_their_names(crf_args: Run) -> None:
    args = replace(crf_args, max_steps=3, evaluate_during_training=False)
    plain = fit(args)[2]
    compiled = fit(replace(args, torch_compile=True, torch_compile_backend="eager"))[2]
    assert largest_difference(compiled, plain) < 1e-6


def test_a_compiled_model_scores_as_it_did_before(crf_args: Run) -> None:
    crf_args, model, dataset = split_of(crf_args)
    before = score_dataset(crf_args, model, dataset, "")
    seen: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        seen.append(graph)
        return graph.forward

    model.compile(dynamic=True, fullgraph=True, backend=backend)
    assert score_dataset(crf_args, model, dataset, "") == before
    assert len(seen) == 1  # for batches of all sizes


def test_compilation_with_data_parallel_is_refused() -> None:
    with pytest.raises(ValueError, match="--torch_compile needs one process per GPU: torchrun --nproc_per_node=2"):
        compile_model(MachineSettings(torch_compile=True), 2, tiny_tagger(BertCrfForNer))
