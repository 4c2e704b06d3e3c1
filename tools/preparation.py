"""Prepare a model for training or prediction: gradient checkpointing, compilation, casing token types."""

import logging

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.tagger import Tagger
from processors.features.alignment import CASINGS
from tools.settings import MachineSettings, Settings

logger = logging.getLogger(__name__)


def checkpoint_layers(machine: MachineSettings, model: PreTrainedModel) -> None:
    """Checkpoint gradients if enabled: keep only the inputs of each layer for the backward pass (Chen et al. 2016).

    Raises:
        ValueError: the encoder's family does not support it.
    """
    if not machine.gradient_checkpointing:
        return
    encoder = model.base_model
    assert isinstance(encoder, PreTrainedModel)
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(f"--gradient_checkpointing: transformers does not support it for {model.config.model_type}")
    former_name = "gradient_checkpointing_enable"  # until transformers 5.17
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, former_name)
    enable({"use_reentrant": False})


def compile_model(machine: MachineSettings, n_gpu: int, model: PreTrainedModel) -> None:
    """Compile the model in place if enabled, with dynamic shapes. Parameter names do not change.

    Raises:
        ValueError: several GPUs use DataParallel, whose replicas cannot be compiled.
    """
    if not machine.torch_compile or getattr(model, "_compiled_call_impl", None) is not None:
        return
    if n_gpu > 1:
        raise ValueError(f"--torch_compile needs one process per GPU: torchrun --nproc_per_node={n_gpu} ...")
    model.compile(dynamic=True, backend=machine.torch_compile_backend)


def casing_types(model: Tagger) -> tuple[int, ...]:
    """Token types that mark the casing of words; empty if the model has none."""
    return tuple(getattr(model.config, "casing_types", ()))


def tell_casing(settings: Settings, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Add casing token types to a model if ``--casing`` is set, and return the casing types of the model.

    Words without capitals keep type 0, as in pretraining; the embeddings of the other types start as copies of type 0.

    Raises:
        ValueError: the encoder has no token type embeddings, or a trained model was trained without casing.
    """
    if settings.model.casing and not casing_types(model):
        if not settings.actions.do_train:
            raise ValueError(f"--casing: the model in {settings.actions.output_dir} was trained without it")
        if tokenizer.tokenize("Rome") != tokenizer.tokenize("rome"):
            logger.warning("--casing is of little use: the tokenizer already distinguishes upper and lower case")
        try:
            model.config.casing_types = [0, *model.add_token_types(CASINGS - 1)]
        except ValueError as error:
            raise ValueError(f"--casing: {error}") from None
    return casing_types(model)
