"""What is done to a model before it learns or is asked: frozen weights, recomputed layers, compilation."""

import logging

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.tagger import Tagger
from processors.features.alignment import CASINGS
from tools.settings import MachineSettings, Settings


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keeps only the inputs of each layer for the backward pass (Chen et al. 2016).

    Raises:
        ValueError: the family cannot.
    """
    encoder = model.base_model
    assert isinstance(encoder, PreTrainedModel)
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(f"--gradient_checkpointing: transformers has none for the family {model.config.model_type}")
    former_name = "gradient_checkpointing_enable"  # until transformers 5.17
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, former_name)
    enable({"use_reentrant": False})


def compile_model(machine: MachineSettings, n_gpu: int, model: PreTrainedModel) -> None:
    """Compiles the model in place, where asked to, so that weights keep their names; once, for batches of any size.

    Raises:
        ValueError: the GPUs are joined by DataParallel, whose copies of a model cannot be compiled.
    """
    if not machine.torch_compile or getattr(model, "_compiled_call_impl", None) is not None:
        return
    if n_gpu > 1:
        raise ValueError(f"--torch_compile needs one process a GPU: torchrun --nproc_per_node={n_gpu} ...")
    model.compile(dynamic=True, backend=machine.torch_compile_backend)


logger = logging.getLogger(__name__)


def casing_types(model: Tagger) -> tuple[int, ...]:
    """The token types that mark the casing of words; empty where the model has none."""
    return tuple(getattr(model.config, "casing_types", ()))


def tell_casing(settings: Settings, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Gives a model that is to be trained types for the casings, where asked to, and returns what it has.

    Words without capitals keep type 0, with which the encoder was pretrained; the other types begin as its copies.

    Raises:
        ValueError: the family has no embeddings of token types, or the trained model has no types for casings.
    """
    if settings.model.casing and not casing_types(model):
        if not settings.actions.do_train:
            raise ValueError(f"--casing: the model in {settings.actions.output_dir} was trained without it")
        if tokenizer.tokenize("Rome") != tokenizer.tokenize("rome"):
            logger.warning("--casing: the tokenizer tells capital letters apart by itself, so little is to be gained")
        try:
            model.config.casing_types = [0, *model.add_token_types(CASINGS - 1)]
        except ValueError as error:
            raise ValueError(f"--casing: {error}") from None
    return casing_types(model)
