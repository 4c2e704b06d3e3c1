"""Options that would change nothing are refused, or where other runs with the same flags have a use for them, said."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple


class _Needs(NamedTuple):
    """An option has an effect only where another has one of these values."""

    other: str
    values: tuple[Any, ...]


_NEEDS = {
    "train_file": _Needs("dataset_name", ("",)),
    "dev_file": _Needs("dataset_name", ("",)),
    "test_file": _Needs("dataset_name", ("",)),
    "adam_epsilon": _Needs("optim", ("adamw_torch_fused", "adamw_torch", "apex_fused_adam")),
    "lr_scheduler_kwargs": _Needs(
        "lr_scheduler_type",
        ("cosine_with_restarts", "cosine_with_min_lr", "cosine", "polynomial", "inverse_sqrt", "warmup_stable_decay"),
    ),
    "ema_decay": _Needs("averaging", ("ema",)),
    "swa_start": _Needs("averaging", ("swa",)),
    "adv_type": _Needs("do_adv", (True,)),
    "adv_epsilon": _Needs("do_adv", (True,)),
    "adv_name": _Needs("do_adv", (True,)),
    "adv_alpha": _Needs("adv_type", ("pgd",)),
    "adv_steps": _Needs("adv_type", ("pgd",)),
    "fp16_backend": _Needs("fp16", (True,)),
    "fp16_opt_level": _Needs("fp16", (True,)),
    "metric_for_best_model": _Needs("evaluate_during_training", (True,)),
    "early_stopping_patience": _Needs("evaluate_during_training", (True,)),
    "torch_compile_backend": _Needs("torch_compile", (True,)),
}


def idle_options(args: Any) -> Iterator[str]:
    """Options that were changed and have no effect with the others as they are."""
    for option in fields(args):
        needs, value = _NEEDS.get(option.name), getattr(args, option.name, option.default)
        if needs and value != option.default and getattr(args, needs.other) not in needs.values:
            values = " or ".join(str(one) for one in needs.values)
            others = f"without --{needs.other} {values}" if values else f"beside --{needs.other}"
            yield f"--{option.name} {value} has no effect {others}"


def idle_in_this_run(args: Any, processes: int) -> Iterator[str]:
    """What changes nothing in this run, though it may in one of other actions or more processes."""
    if args.eval_all_checkpoints and not args.do_eval:
        yield "--eval_all_checkpoints has no effect without --do_eval"
    if args.predict_checkpoints and not args.do_predict:
        yield f"--predict_checkpoints {args.predict_checkpoints} has no effect without --do_predict"
    if args.shard_optimizer and processes == 1:
        yield "--shard_optimizer has no effect in one process: there is none to share with; see docs/distributed.md"
