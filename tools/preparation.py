"""What is done to a model before it learns or is asked: frozen weights, recomputed layers, compilation."""

from transformers import PreTrainedModel

from models.tagger import Tagger
from tools.arguments import NerArguments


def checkpoint_layers(args: NerArguments, model: Tagger) -> None:
    """Keeps only the inputs of each layer for the backward pass, where asked to (Chen et al. 2016).

    Raises:
        ValueError: the family cannot.
    """
    if not args.gradient_checkpointing:
        return
    encoder = model.base_model
    assert isinstance(encoder, PreTrainedModel)
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(f"--gradient_checkpointing: transformers has none for the family {model.config.model_type}")
    former_name = "gradient_checkpointing_enable"  # until transformers 5.17
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, former_name)
    enable({"use_reentrant": False})


def compile_model(args: NerArguments, model: Tagger) -> None:
    """Compiles the model in place, so that weights keep their names; once, for batches of any size.

    Raises:
        ValueError: the GPUs are joined by DataParallel, whose copies of a model cannot be compiled.
    """
    if not args.torch_compile or getattr(model, "_compiled_call_impl", None) is not None:
        return
    if args.n_gpu > 1:
        raise ValueError(f"--torch_compile needs one process a GPU: torchrun --nproc_per_node={args.n_gpu} ...")
    model.compile(dynamic=True, backend=args.torch_compile_backend)
