"""Whether a checkpoint of Lightning belongs to the run that reads it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from tools.resume import refuse_kept_options


def check_model(checkpoint: Mapping[str, Any], module: nn.Module, traits: Mapping[str, str], source: str) -> None:
    """Raises a ValueError where a checkpoint holds another model than the flags have built.

    Args:
        module: what the checkpoint's weights are meant for.
        traits: the flags that say what kind of model it is, as ``traits`` of the checkpoint has them.
        source: names the checkpoint.
    """
    before = checkpoint.get("traits", {})
    other = next((name for name in traits if before.get(name, traits[name]) != traits[name]), None)
    if other:
        advice = "say the same, or name another --output_dir"
        raise ValueError(f"{source} was trained with --{other} {before[other]}: {advice}")
    there, wanted = (
        {name: tuple(weight.shape) for name, weight in state.items()}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    misfits = sorted(name for name in there | wanted if there.get(name) != wanted.get(name))
    if misfits:
        shapes = f"{misfits[0]} is {there.get(misfits[0])} there and {wanted.get(misfits[0])} here"
        raise ValueError(f"{source} is of another encoder ({shapes}): name it in --model_name_or_path")


def check_course(checkpoint: Mapping[str, Any], order: str, flags: Mapping[str, Any], source: str) -> None:
    """Raises a ValueError where a training cannot go on from a checkpoint as the flags have it.

    Args:
        order: digest of the order of the data.
    """
    if checkpoint["order"] != order:
        raise ValueError(
            "the training data comes in another order than before: keep the data, --seed, --max_seq_length and the "
            "sequences of a step (--train_batch_size x processes x --accumulate_grad_batches)"
        )
    refuse_kept_options(flags, checkpoint["hyper_parameters"], source)
