"""Flags of the Lightning scripts: the names of the Hugging Face examples, and what is refused."""

import re
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from transformers import AutoConfig
from transformers.optimization import Adafactor

from lightning_runs.flags import LightningOptions, differing_defaults, parse_lightning
from lightning_runs.trainer import build_trainer
from models import BertCrfForNer
from run_pl_glue import REFUSED, GlueLogging, GlueOptions
from run_pl_ner import NER_DEFAULTS, NerOptions
from tests.lightning_runs.lightning_runs import command_line
from tests.models.families import tiny_tagger
from tools.optimizer import build_optimizer, build_schedule
from tools.settings import Settings


def parsed(*words: str, **options: Any) -> tuple[Settings, LightningOptions]:
    blank = Settings.of(BertCrfForNer.Options, **NER_DEFAULTS)
    settings, others, _ = parse_lightning(
        blank, NerOptions, None, argv=[*words, *command_line(do_train=True, **options)]
    )
    return settings, others


def test_flags_of_the_examples_are_understood() -> None:
    line = (
        "--data_dir d --output_dir o --model_name_or_path m --config_name c --tokenizer_name t --cache_dir k "
        "--learning_rate 3e-5 --lr_scheduler cosine_w_restarts --weight_decay 0.1 --adam_epsilon 1e-6 --warmup_steps 5 "
        "--num_workers 2 --max_epochs 4 --train_batch_size 8 --eval_batch_size 9 --do_predict --gradient_clip_val 0.5 "
        "--accumulate_grad_batches 2 --seed 1 --max_seq_length 64 --gpus 0 --overwrite_cache --log_every_n_steps 3 "
        "--task_type Chunk --labels l --dropout 0.2 --attention_dropout 0.3"
    )
    settings, options = parsed(*line.split())
    flat = settings.flat()
    assert {name: flat[name] for name in ("num_train_epochs", "max_grad_norm", "gradient_accumulation_steps")} == {
        "num_train_epochs": 4,
        "max_grad_norm": 0.5,
        "gradient_accumulation_steps": 2,
    }
    assert (flat["per_gpu_train_batch_size"], flat["per_gpu_eval_batch_size"], flat["log_loss_steps"]) == (8, 9, 3)
    assert (flat["train_max_seq_length"], flat["eval_max_seq_length"]) == (64, 64)
    assert (flat["lr_scheduler_type"], flat["warmup_steps"]) == ("cosine_with_restarts", 5)
    assert (flat["config_name"], flat["tokenizer_name"], flat["cache_dir"], flat["num_workers"]) == ("c", "t", "k", 2)
    assert (options.dropout, options.attention_dropout, options.gpus) == (0.2, 0.3, 0)


def test_defaults_are_those_of_the_other_scripts_but_for_a_few_that_are_named() -> None:
    settings, _ = parsed()
    others = Settings.of(BertCrfForNer.Options).flat()
    assert {name: value for name, value in settings.flat().items() if value != others[name]} == {
        **NER_DEFAULTS,
        "do_train": True,
    }
    assert "--markup bio" in differing_defaults(settings, NER_DEFAULTS)
    assert "--markup" not in differing_defaults(settings.replace(markup="bios"), NER_DEFAULTS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optim": "adafactor", "adam_epsilon": 1e-6}, "--adam_epsilon 1e-06 has no effect without --optim"),
        ({"adv_epsilon": 2.0}, "--adv_epsilon 2.0 has no effect without --do_adv"),
        ({"ema_decay": 0.5}, "--ema_decay 0.5 has no effect without --averaging ema"),
        ({"averaging": "ema", "swa_start": 0.5}, "--swa_start 0.5 has no effect without --averaging swa"),
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16 exclude each other"),
        ({"warmup_steps": 3, "warmup_proportion": 0.3}, "--warmup_steps and --warmup_proportion exclude each other"),
        ({"max_batch_tokens": 512}, "--max_batch_tokens 512: Lightning needs the same number of batches"),
        ({"save_total_limit": 2, "shard_optimizer": True}, r"--save_total_limit 2: .*; --shard_optimizer True: "),
        ({"devices": 0}, "--devices.* must be a whole number, at least 1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    options: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(**options)
    message = capsys.readouterr().err
    assert re.search(said, message), message


def test_glue_refuses_what_is_about_words(capsys: pytest.CaptureFixture[str]) -> None:
    blank = Settings(logging=GlueLogging())
    with pytest.raises(SystemExit):
        parse_lightning(
            blank, GlueOptions, None, REFUSED, ["--task", "mrpc", "--markup", "bioes", "--rdrop_alpha", "1"]
        )
    message = capsys.readouterr().err
    assert "--markup bioes: it applies to words" in message
    assert "--rdrop_alpha 1.0: " in message


@pytest.mark.parametrize(
    ("options", "here", "said"),
    [
        ({"gpus": 99}, 0, "99 GPUs requested, but this machine has 0"),
        ({"gpus": 4, "devices": 2}, 8, "--gpus 4 and --devices 2 contradict each other"),
        ({"gpus": 1, "no_cuda": True}, 8, "--no_cuda and --gpus 1 contradict each other"),
    ],
)
def test_devices_that_contradict_each_other_are_refused(
    options: dict[str, Any], here: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    with pytest.raises(ValueError, match=said):
        build_trainer(*parsed(**options))


def test_processes_and_machines_in_the_terms_of_lightning() -> None:
    alone = build_trainer(*parsed(gpus=0))
    assert (alone.num_devices, alone.strategy.root_device.type, alone.strategy.launcher) == (1, "cpu", None)
    together = build_trainer(*parsed(gpus=0, devices=2, num_nodes=2))
    assert (together.num_devices, together.num_nodes, together.world_size) == (2, 2, 4)


@pytest.mark.parametrize(
    ("options", "kind", "fused"),
    [({}, AdamW, True), ({"bf16": True}, AdamW, True), ({"adafactor": True}, Adafactor, None)],
)
def test_the_optimiser_has_the_groups_of_the_other_scripts(
    options: dict[str, Any], kind: type, fused: bool | None
) -> None:
    settings, _ = parsed(weight_decay=0.1, crf_learning_rate=0.5, **options)
    optimizer = build_optimizer(settings.optimisation, tiny_tagger(BertCrfForNer), settings.head)
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
    settings, _ = parsed(lr_scheduler=name, learning_rate=1.0, **warmup)
    optimizer = build_optimizer(settings.optimisation, tiny_tagger(BertCrfForNer), settings.head)
    schedule = build_schedule(settings.optimisation, optimizer, 110)
    rates = []
    for _ in range(110):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(later, abs=0.01)
    assert name == "constant" or rates[5] == 0.5


def test_dropouts_are_set_under_the_names_of_the_family() -> None:
    options = LightningOptions(dropout=0.3, attention_dropout=0.2)
    bert, distilbert = AutoConfig.for_model("bert"), AutoConfig.for_model("distilbert")
    for config in (bert, distilbert):
        options.set_dropouts(config)
    assert (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob) == (0.3, 0.2)
    assert (distilbert.dropout, distilbert.attention_dropout) == (0.3, 0.2)
    assert not hasattr(bert, "dropout")
