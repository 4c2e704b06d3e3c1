"""The flags of every script: numbers out of bounds, and unknown names."""

import importlib
import sys
from argparse import Action, ArgumentParser
from typing import Any
from unittest.mock import patch

import pytest

from common.command_line import Bounds, CommandLine

SCRIPTS = {
    "run_ner_crf": [],
    "run_ner_softmax": [],
    "run_ner_span": [],
    "run_pl_ner": ["--model_name_or_path=encoder"],
    "run_pl_glue": ["--model_name_or_path=encoder", "--task=MRPC"],
    "predict_ner": ["--model=run", "--text=a"],
    "serve_ner": ["--model=run"],
    "analysis.compare_runs": ["run"],
    "tools.new_encoder": ["--vocab=vocab.txt", "--output_dir=encoder"],
    "tools.convert_corpus": ["source", "target", "--to=jsonl"],
    "tools.find_label_errors": [],
    "tools.select_texts": ["run", "texts.txt", "--output=out"],
    "tools.combine_sources": ["layers.jsonl", "--output=out"],
    "tools.import_markup": ["answers.jsonl", "--output=out"],
    "tools.make_gazetteer": ["train.txt", "out"],
    "inference.export_onnx": ["run"],
    "analysis.report.__main__": ["run"],
}
every_script = pytest.mark.parametrize("script", SCRIPTS)
MAY_BE_ZERO = {
    "eval_max_seq_length",
    *("window_overlap", "max_batch_tokens", "freeze_layers", "warmup_proportion", "warmup_steps", "num_train_epochs"),
    *(
        "learning_rate",
        "head_learning_rate",
        "crf_learning_rate",
        "span_learning_rate",
        "weight_decay",
        "max_grad_norm",
        "gradient_clip_val",
    ),
    *("ema_decay", "swa_start", "rdrop_alpha", "dropout", "attention_dropout", "early_stopping_patience"),
    *("bilstm_size", "bilstm_learning_rate", "word_dropout", "context_size", "context_dropout", "distill_weight"),
    *("annotated_share", "entity_ratio", "entity_ratio_margin", "entity_ratio_weight"),
    *(
        "keep_layers",
        "save_steps",
        "save_total_limit",
        "seed",
        "num_workers",
        "local_rank",
        "gpus",
        "port",
        "batch_timeout",
        "max_f1_loss",
        "min_suspicion",
        "min_share",
    ),
}


def ended(script: str, *flags: str, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The exit status and the error output of a script."""
    with patch.object(sys, "argv", [script, *SCRIPTS[script], *flags]), pytest.raises(SystemExit) as end:
        importlib.import_module(script).main()
    return end.value.code, capsys.readouterr().err


class Found(Exception):  # noqa: N818
    """Passes a parser out of a script."""


def numbers_of(script: str) -> list[Action]:
    """The numeric options of a script."""

    def found(parser: CommandLine, *_: Any) -> None:
        raise Found(parser)

    with patch.object(CommandLine, "parse_args", found), pytest.raises(Found) as end:
        importlib.import_module(script).main()
    options = end.value.args[0]._actions
    assert not [option.dest for option in options if option.type in (int, float)], "a number without bounds"
    return [option for option in options if isinstance(option.type, Bounds)]


@every_script
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-99", "1e30", "9" * 400, "many", ""])
def test_no_number_is_taken_that_is_out_of_bounds(script: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [option.option_strings[0] for option in numbers_of(script)]
    code, said = ended(script, *[f"{flag}={value}" for flag in flags], "--that_is_not_there", capsys=capsys)
    assert code == 2
    lines = [line.strip() for line in said.splitlines()]
    assert [line.partition(f" {value}: must be a")[0] for line in lines if "must be a" in line] == flags
    assert len(lines) == len(flags) + 1 + bool(flags)
    assert all(len(line) < 600 for line in lines)


@every_script
def test_zero_is_taken_only_where_it_means_something(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = {option.dest: option.option_strings[0] for option in numbers_of(script)}
    code, said = ended(script, *[f"{flag}=0" for flag in names.values()], "--that_is_not_there", capsys=capsys)
    assert code == 2
    assert {name for name, flag in names.items() if f"{flag} 0: must be" not in said} == names.keys() & MAY_BE_ZERO


@pytest.mark.parametrize("flag", ["max_grad_norm=nan", "log_loss_steps=0", "weight_decay=-1", "window_overlap=-9"])
def test_one_fault_is_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended("run_ner_crf", f"--{flag}", capsys=capsys)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"run_ner_crf: error: --{flag.replace('=', ' ')}: must be a")


@pytest.mark.parametrize(
    ("script", "flags", "meant"),
    [
        ("run_ner_crf", "--max_seq_length 8", "--train_max_seq_length"),
        ("run_ner_crf", "--per_device_train_batch_size=8", "--per_gpu_train_batch_size"),
        ("run_ner_crf", "--per-device-eval-batch-size 8", "--per_gpu_eval_batch_size"),
        ("run_ner_softmax", "--validation_file dev.json", "--dev_file"),
        ("run_ner_softmax", "--warmup_ratio 0.1", "--warmup_proportion"),
        ("run_ner_softmax", "--learning_rat 0.1", "--learning_rate"),
        ("run_pl_glue", "--per_device_train_batch_size 8", "--per_gpu_train_batch_size"),
        ("run_pl_glue", "--epochs 8", "--num_train_epochs"),
        ("predict_ner", "--batch_size 8", "--batch_tokens"),
        ("serve_ner", "--model_name_or_path run", "--model"),
        ("tools.new_encoder", "--vocabs=3", "--vocab"),
    ],
)
def test_other_names_of_a_flag_are_known(
    script: str, flags: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(script, *flags.split(), capsys=capsys)
    flag = flags.split()[0].partition("=")[0]
    assert (code, said) == (2, f"{script}: error: unrecognized {flag}: did you mean {meant}?\n")


def test_all_unknown_flags_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--max_seq_length", "8", "--fluxcompensator", "--lr=1", "--lr=2", "--do_train", "no", "left", "over")
    _, said = ended("run_ner_crf", *flags, capsys=capsys)
    assert said.splitlines()[1:] == [
        "  unrecognized --max_seq_length: did you mean --train_max_seq_length?",
        "  unrecognized --fluxcompensator; see --help",
        "  unrecognized --lr: did you mean --learning_rate?",
    ]
    _, said = ended("run_ner_crf", "--do_train", "no", "left", "over", capsys=capsys)
    assert said == "run_ner_crf: error: unrecognized left over\n"


def test_a_value_may_begin_with_dashes() -> None:
    parser = CommandLine()
    parser.add_argument("--text")
    for words in (["--text", "-- said Anna"], ["--text=--said"], ["--text", "--said Anna = Bob"]):
        assert parser.parse_args(words).text == words[-1].removeprefix("--text=")


def test_a_plain_parser_of_ones_own_knows_the_bounds_too(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--share", type=Bounds(float, at_least=0, at_most=1))
    with pytest.raises(SystemExit):
        parser.parse_args(["--share=2"])
    assert "argument --share: must be a number, at least 0 and at most 1" in capsys.readouterr().err
