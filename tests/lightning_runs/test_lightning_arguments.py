"""Flags of the Lightning scripts: their names of old, and what they must not say together."""

from argparse import ArgumentParser, Namespace
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from transformers import AutoConfig
from transformers.optimization import Adafactor

from lightning_runs.flags import as_settings, check_arguments, set_dropouts, trainer_options
from lightning_runs.module import add_generic_args
from models import BertCrfForNer
from run_pl_ner import METRICS, NERTransformer
from tests.lightning_runs.lightning_runs import command_line
from tests.models.families import tiny_tagger
from tools.optimizer import build_optimizer, build_schedule


def parsed(**options: Any) -> Namespace:
    parser = ArgumentParser(allow_abbrev=False)
    add_generic_args(parser)
    NERTransformer.add_model_specific_args(parser)
    return parser.parse_args(command_line(model_name_or_path="encoder", output_dir="run", do_train=True, **options))


def test_flags_of_the_examples_are_understood() -> None:
    line = (
        "--data_dir d --output_dir o --model_name_or_path m --config_name c --tokenizer_name t --cache_dir k "
        "--learning_rate 3e-5 --lr_scheduler cosine_w_restarts --weight_decay 0.1 --adam_epsilon 1e-6 --warmup_steps 5 "
        "--num_workers 2 --num_train_epochs 4 --train_batch_size 8 --eval_batch_size 9 --do_train --do_predict "
        "--max_grad_norm 0.5 --gradient_accumulation_steps 2 --seed 1 --max_seq_length 64 --gpus 0 --overwrite_cache "
        "--task_type Chunk --labels l --dropout 0.2 --attention_dropout 0.3 --fp16"
    )
    parser = ArgumentParser(allow_abbrev=False)
    add_generic_args(parser)
    NERTransformer.add_model_specific_args(parser)
    flags = parser.parse_args(line.split())
    assert (flags.max_epochs, flags.gradient_clip_val, flags.accumulate_grad_batches) == (4, 0.5, 2)
    args = Namespace(**as_settings(flags, BertCrfForNer.Options).flat())
    assert (args.per_gpu_train_batch_size, args.per_gpu_eval_batch_size, args.eval_max_seq_length) == (8, 9, 64)
    assert (args.lr_scheduler_type, args.warmup_steps, args.gradient_accumulation_steps) == (
        "cosine_with_restarts",
        5,
        2,
    )
    assert (args.config_name, args.tokenizer_name, args.cache_dir, args.num_workers) == ("c", "t", "k", 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adafactor": True, "adam_epsilon": 1e-6}, "--adam_epsilon 1e-06 has no effect with --adafactor"),
        ({"adv_epsilon": 2.0}, "--adv_epsilon 2.0 has no effect without --do_adv"),
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16 exclude each other"),
        ({"fp16": True, "gpus": 0}, "--fp16 needs a GPU"),
        ({"warmup_steps": 3, "warmup_proportion": 0.1}, "--warmup_steps and --warmup_proportion exclude each other"),
        ({"gpus": 99}, "99 GPUs are asked for, and this machine has"),
        (
            {"metric_for_best_model": "mcc", "fp16": True, "bf16": True},
            "--fp16 and .*; --metric_for_best_model mcc is",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_arguments(parsed(**options), METRICS)


def test_devices_and_gpus_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    check_arguments(parsed(gpus=4, devices=4), METRICS)
    with pytest.raises(ValueError, match="--gpus 4 and --devices 2 contradict each other"):
        check_arguments(parsed(gpus=4, devices=2), METRICS)


def test_it_takes_a_training_to_go_on_with() -> None:
    flags = parsed(do_predict=True, resume_from_checkpoint="auto")
    flags.do_train = False
    with pytest.raises(ValueError, match=r"--resume_from_checkpoint .*: add --do_train"):
        check_arguments(flags, METRICS)


def test_something_must_be_done() -> None:
    flags = parsed()
    flags.do_train = False
    with pytest.raises(ValueError, match="nothing to do: add --do_train or --do_predict"):
        check_arguments(flags, METRICS)


def test_a_run_needs_a_folder() -> None:
    flags = parsed()
    flags.output_dir = ""
    with pytest.raises(ValueError, match="--output_dir must be given"):
        check_arguments(flags, METRICS)


@pytest.mark.parametrize(
    ("options", "cuda", "expected"),
    [
        ({}, False, ("cpu", 1, "32-true")),
        ({"devices": 2, "bf16": True}, False, ("cpu", 2, "bf16-mixed")),
        ({}, True, ("gpu", 1, "32-true")),
        ({"gpus": 4, "fp16": True}, True, ("gpu", 4, "16-mixed")),
        ({"gpus": -1}, True, ("gpu", -1, "32-true")),
        ({"gpus": 0, "devices": 3}, True, ("cpu", 3, "32-true")),
    ],
)
def test_devices_and_precision_in_lightnings_terms(
    options: dict[str, Any], cuda: bool, expected: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    chosen = trainer_options(parsed(**options))
    assert (chosen["accelerator"], chosen["devices"], chosen["precision"]) == expected


@pytest.mark.parametrize(
    ("options", "kind", "fused"),
    [({}, AdamW, True), ({"bf16": True}, AdamW, False), ({"adafactor": True}, Adafactor, None)],
)
def test_the_optimiser_has_the_groups_of_the_other_scripts(
    options: dict[str, Any], kind: type, fused: bool | None
) -> None:
    settings = as_settings(parsed(weight_decay=0.1, **options), BertCrfForNer.Options)
    optimizer = build_optimizer(settings.optimisation, tiny_tagger(BertCrfForNer), 0.5)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0].get("fused") == fused
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates["encoder/decayed"] == (5e-5, 0.1)
    assert rates["crf/decayed"] == (0.5, 0.1)
    assert rates["encoder/not decayed"] == (5e-5, 0.0)


@pytest.mark.parametrize(
    ("name", "later"),
    [("linear", 0.5), ("cosine", 0.5), ("cosine_w_restarts", 0.5), ("polynomial", 0.5), ("constant", 1.0)],
)
def test_rates_rise_and_fall_as_the_schedule_has_it(name: str, later: float) -> None:
    warmup = {} if name == "constant" else {"warmup_steps": 10}
    flags = parsed(lr_scheduler=name, learning_rate=1.0, **warmup)
    optimisation = as_settings(flags, BertCrfForNer.Options).optimisation
    optimizer = build_optimizer(optimisation, tiny_tagger(BertCrfForNer), 0.5)
    schedule = build_schedule(optimisation, optimizer, 110)
    rates = []
    for _ in range(110):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(later, abs=0.01)
    assert name == "constant" or rates[5] == 0.5


def test_dropouts_are_set_under_the_names_of_the_family() -> None:
    flags = parsed(dropout=0.3, attention_dropout=0.2)
    bert, distilbert = AutoConfig.for_model("bert"), AutoConfig.for_model("distilbert")
    for config in (bert, distilbert):
        set_dropouts(flags, config)
    assert (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob) == (0.3, 0.2)
    assert (distilbert.dropout, distilbert.attention_dropout) == (0.3, 0.2)
    assert not hasattr(bert, "dropout")
