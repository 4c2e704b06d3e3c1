"""AdamW with a rate for each part of the model, and the linear schedule."""

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from tools.arguments import NerArguments


def build_optimizer(args: NerArguments, model: nn.Module) -> Optimizer:
    """AdamW; biases, norms and other vectors are not decayed (Loshchilov and Hutter 2019).

    The groups are named ``encoder``, ``head`` and ``crf``, each with and without decay. Heads start from nothing, so
    they learn 10 to 100 times faster than the encoder unless told otherwise.
    """
    has_crf = any(part_of(name) == "crf" for name, _ in model.named_parameters())
    head_rate = args.head_learning_rate
    if head_rate < 0:
        head_rate = args.crf_learning_rate if has_crf else args.learning_rate
    rates = {"encoder": args.learning_rate, "head": head_rate, "crf": args.crf_learning_rate}
    groups = []
    for part, rate in rates.items():
        for decays in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and part_of(name) == part and _decays(name, parameter) == decays
            ]
            if parameters:
                name = f"{part}/{'decayed' if decays else 'not decayed'}"
                decay = args.weight_decay if decays else 0.0
                groups.append({"name": name, "params": parameters, "lr": rate, "weight_decay": decay})
    return AdamW(groups, lr=args.learning_rate, eps=args.adam_epsilon, fused=True)


def part_of(parameter_name: str) -> str:
    """Which part of a tagger a parameter belongs to: ``encoder``, ``head`` or ``crf``."""
    return {"classifier": "head", "crf": "crf"}.get(parameter_name.partition(".")[0], "encoder")


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")  # XLNet has biases of two dimensions


def build_schedule(args: NerArguments, optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Rises linearly over the warm-up, then falls linearly to nothing."""
    return get_linear_schedule_with_warmup(optimizer, int(args.warmup_proportion * total_steps), total_steps)
