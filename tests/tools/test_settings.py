"""Flags, refusals and help."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from analysis.metrics import EntityScores, Score
from callbacks.base import comparable
from models import HEADS, BertCrfForNer, BertSoftmaxForNer
from tools.command_line import parse_settings
from tools.evaluate import SplitScores
from tools.settings import Settings, require
from tools.training_settings import BEST_MODEL_METRICS

CRF, SOFTMAX = BertCrfForNer.Options, BertSoftmaxForNer.Options
both_kinds = pytest.mark.parametrize("kind", [CRF, SOFTMAX])

# The names that the field uses, from docs and issues, each with a value that is not its default.
FIELD_FLAGS: dict[str, Any] = {
    "model_type": "bert",
    "model_name_or_path": "bert-base-chinese",
    "task_name": "cner",
    "data_dir": "datasets/cner",
    "output_dir": "outputs/cner",
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "do_lower_case": True,
    "train_max_seq_length": 64,
    "eval_max_seq_length": 256,
    "per_gpu_train_batch_size": 24,
    "per_gpu_eval_batch_size": 25,
    "gradient_accumulation_steps": 2,
    "learning_rate": 3e-5,
    "crf_learning_rate": 2e-3,
    "weight_decay": 0.02,
    "adam_epsilon": 1e-6,
    "max_grad_norm": 2.0,
    "num_train_epochs": 4.5,
    "max_steps": 100,
    "warmup_proportion": 0.2,
    "logging_steps": 50,
    "save_steps": 60,
    "eval_all_checkpoints": True,
    "predict_checkpoints": "all",
    "no_cuda": True,
    "overwrite_output_dir": True,
    "overwrite_cache": True,
    "seed": 7,
    "fp16": True,
    "fp16_opt_level": "O2",
    "local_rank": 0,
    "markup": "bio",
    "loss": "focal",
    "do_adv": True,
    "adv_epsilon": 0.5,
    "adv_name": "embeddings",
    "cache_dir": "downloads",
    "config_name": "config.json",
    "tokenizer_name": "vocab.txt",
    "evaluate_during_training": False,
}
NEEDED = {"fp16_opt_level": "fp16", "adv_epsilon": "do_adv", "adv_name": "do_adv"}
BERT_NER_PYTORCH = [
    "--model_type=bert",
    "--model_name_or_path=prev_trained_model/bert-base",
    "--task_name=cner",
    "--do_train",
    "--do_eval",
    "--do_lower_case",
    "--data_dir=datasets/cner/",
    "--train_max_seq_length=128",
    "--eval_max_seq_length=512",
    "--per_gpu_train_batch_size=24",
    "--per_gpu_eval_batch_size=24",
    "--learning_rate=3e-5",
    "--crf_learning_rate=1e-3",
    "--num_train_epochs=4.0",
    "--logging_steps=-1",
    "--save_steps=-1",
    "--output_dir=outputs/cner_output/",
    "--overwrite_output_dir",
    "--seed=42",
]


def refusal(capsys: pytest.CaptureFixture[str], *argv: str, kind: type = CRF) -> str:
    """What the user reads when a command line ends the program."""
    with pytest.raises(SystemExit) as ended:
        parse_settings(kind, argv=list(argv))
    assert ended.value.code == 2
    return capsys.readouterr().err


@both_kinds
@pytest.mark.parametrize("name", FIELD_FLAGS)
def test_every_flag_of_the_field_is_taken(kind: type, name: str) -> None:
    value = FIELD_FLAGS[name]
    needed = [f"--{NEEDED[name]}"] if name in NEEDED else []
    others = {one.name: one.default for head in HEADS.values() for one in fields(head.Options)}
    if name in others and name not in Settings.of(kind).flat():  # an option of the other head: only its default
        parse_settings(kind, argv=[f"--{name}={others[name]}"])
        return
    for flag in ([f"--{name}={value}"], [f"--{name.replace('_', '-')}", str(value)]):
        settings = parse_settings(kind, argv=[*needed, *flag])
        assert {**settings.flat(), "local_rank": settings.machine.local_rank}[name] == value


@pytest.mark.parametrize(("kind", "flag"), [(CRF, "--loss_type=focal"), (SOFTMAX, "--crf_learning_rate=0.5")])
def test_a_flag_of_another_head_is_refused_where_it_would_change_nothing(
    kind: type, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "it is an option of --head " in refusal(capsys, flag, kind=kind)


@pytest.mark.parametrize(
    ("flags", "chosen"), [([], ""), (["--predict_checkpoints"], "all"), (["--predict_checkpoints=40"], "40")]
)
def test_checkpoints_to_predict_with_are_named_by_step_or_all(flags: list[str], chosen: str) -> None:
    assert parse_settings(CRF, argv=flags).actions.predict_checkpoints == chosen


def test_other_names_of_checkpoints_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither a step nor all" in refusal(capsys, "--predict_checkpoints=best")


@both_kinds
def test_a_flag_that_stands_alone_means_yes(kind: type) -> None:
    args = parse_settings(kind, argv=["--do_train", "--fp16", "--no_evaluate_during_training"])
    assert args.actions.do_train
    assert args.machine.fp16
    assert not args.logging.evaluate_during_training


def test_a_command_line_of_bert_ner_pytorch_runs_unchanged() -> None:
    args = parse_settings(CRF, argv=BERT_NER_PYTORCH)
    assert (args.actions.do_train, args.actions.do_eval, args.actions.do_predict) == (True, True, False)
    assert (args.optimisation.learning_rate, args.head.crf_learning_rate) == (3e-5, 1e-3)
    assert (args.optimisation.num_train_epochs, args.logging.save_steps, args.optimisation.seed) == (4.0, -1, 42)


@pytest.mark.parametrize("flag", ["--local-rank=1", "--local_rank=1"])
def test_both_spellings_of_the_launcher_are_taken(flag: str) -> None:
    assert parse_settings(CRF, argv=[*BERT_NER_PYTORCH, flag]).machine.local_rank == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--fp16", "--bf16"], "--fp16 and --bf16 exclude each other"),
        (["--num_train_epochs=0"], "--num_train_epochs 0.0 trains nothing"),
        (["--warmup_proportion=1.5"], "--warmup_proportion 1.5: must be a number, at least 0 and at most 1"),
        (["--layer_decay=0"], "--layer_decay 0: must be a number, greater than 0 and at most 1"),
        (["--swa_start=1.0", "--averaging=swa"], "--swa_start 1.0: must be a number, at least 0 and less than 1"),
        (
            ["--head_learning_rate=-5"],
            "--head_learning_rate -5: must be a number, at least 0 and at most 2147483647, or",
        ),
        (["--seed=1.5"], "--seed 1.5: must be a whole number, at least 0 and at most"),
        (["--log_loss_steps=every"], "--log_loss_steps every: must be a whole number, at least 1 and"),
        (["--optim=sgd"], "sgd"),
        (
            ["--report_to=tensorboard,comet"],
            "--report_to tensorboard,comet: expected none alone, or some of tensorboard, mlflow, wandb",
        ),
        (["--report_to=none,tensorboard"], "--report_to none,tensorboard: expected none alone"),
        (["--metric_for_best_model=bleu"], "--metric_for_best_model bleu: invalid choice"),
        (["--fp16_opt_level=O2"], "--fp16_opt_level O2 has no effect without --fp16 True"),
        (["--adv_epsilon=.5"], "--adv_epsilon 0.5 has no effect without --do_adv True"),
        (["--adv_type=pgd"], "--adv_type pgd has no effect without --do_adv True"),
        (["--do_adv", "--adv_steps=5"], "--adv_steps 5 has no effect without --adv_type pgd"),
        (["--averaging=mean"], "mean"),
        (["--averaging=swa", "--ema_decay=0.5"], "--ema_decay 0.5 has no effect without --averaging ema"),
        (["--early_stopping_patience=2", "--no_evaluate_during_training"], "has no effect without --evaluate_during"),
        (["--lr_scheduler_type=step"], "step"),
        (["--torch_compile_backend=eager"], "--torch_compile_backend eager has no effect without --torch_compile True"),
        (["--optim=adafactor", "--adam_epsilon=1"], "--adam_epsilon 1.0 has no effect without --optim adamw_torch_f"),
        (
            ['--lr_scheduler_kwargs={"a": 1}'],
            "has no effect without --lr_scheduler_type cosine or cosine_with_restarts or ",
        ),
        (["--dataset_name=wikiann:de", "--dev_file=dev.txt"], "--dev_file dev.txt has no effect with --dataset_name"),
        (["--fp16_backend=native"], "--fp16_backend native has no effect without --fp16 True"),
        (
            ["--metric_for_best_model=loss", "--no_evaluate_during_training"],
            "--metric_for_best_model loss has no effect without --evaluate_during_training True",
        ),
        (["--warmup_steps=5", "--warmup_proportion=0.2"], "--warmup_steps and --warmup_proportion exclude each other"),
        (["--markup=iob1"], "iob1"),
        (["--word_unit=syllable"], "syllable"),
        (["--fp16_opt_level=O7"], "O7"),
        (["--do_train=perhaps"], "--do_train perhaps: Truthy value expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, *argv)


@pytest.mark.parametrize("proportion", [0.0, 0.1])
def test_warmup_steps_may_stand_for_the_usual_proportion_or_none(proportion: float) -> None:
    flags = ["--warmup_steps=5", f"--warmup_proportion={proportion}"]
    assert parse_settings(CRF, argv=flags).optimisation.warmup_steps == 5


def test_max_steps_may_stand_for_epochs() -> None:
    assert parse_settings(CRF, argv=["--max_steps=10", "--num_train_epochs=0"]).optimisation.max_steps == 10


def test_what_is_wrong_with_settings_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--seed=-1", "--max_grad_norm=nan", "--optim=sgd", "--epochs=2").splitlines()
    assert [line.split()[0] for line in said[1:]] == ["unrecognized", "--seed", "--max_grad_norm", "--optim"]
    together = refusal(capsys, "--fp16", "--bf16", "--adv_alpha=1", "--warmup_steps=5", "--warmup_proportion=0.2")
    assert all(part in together for part in ("--fp16 and --bf16", "--adv_alpha 1.0 has", "--warmup_steps and"))
    with pytest.raises(ValueError, match=r"--optim sgd is none of .*; --seed -1: must be .*; --fp16 and --bf16"):
        Settings.of(CRF, seed=-1, optim="sgd", fp16=True, bf16=True)


def test_the_best_model_is_chosen_by_a_score_that_there_is() -> None:
    of_tags = SplitScores(EntityScores(strict=Score(), accuracy=0.0), loss=0.0).headline()
    assert set(BEST_MODEL_METRICS) == set(of_tags)
    with pytest.raises(ValueError, match="--metric_for_best_model accuracy: this head has only the scores loss, "):
        comparable(SplitScores(EntityScores(), loss=0.0).headline(), "accuracy")


@both_kinds
def test_the_arguments_as_json_are_a_config_file_of_the_same_run(kind: type, tmp_path: Path) -> None:
    args = parse_settings(
        kind, argv=["--seed=7", "--do_adv", "--data_dir=a b", "--learning_rate=1e-7", "--tag_column=-1"]
    )
    path = tmp_path / "training_args.json"
    path.write_text(json.dumps(args.flat()))
    again = parse_settings(kind, argv=["--config_file", str(path)])
    assert again.flat() == args.flat()


def shown(capsys: pytest.CaptureFixture[str], flag: str, kind: type = CRF) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_settings(kind, argv=[flag])
    assert ended.value.code == 0
    return capsys.readouterr().out


@both_kinds
def test_help_shows_the_common_flags_and_help_all_each_flag_once(
    kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    common, everything = shown(capsys, "--help", kind), shown(capsys, "--help_all", kind)
    names = [*Settings.of(kind).flat(), "local_rank", "config_file", "help_all"]
    for name in names:
        assert len(re.findall(rf"^  --(\[no_\])?{name}\b", everything, re.M)) == 1, name
    assert len(re.findall(r"^  --", everything, re.M)) == len(names)
    assert 25 <= len(re.findall(r"^  --", common, re.M)) <= 40
    assert len(common.splitlines()) < 80
    for group in ("actions", "data", "model", "head", "optimisation", "logging", "machine"):
        assert f"\n{group}:\n" in common
    assert ("--crf_learning_rate" in common) == (kind is CRF)


def test_missing_flags_are_all_named() -> None:
    with pytest.raises(ValueError, match="--task_name, --data_dir must be given"):
        require(Settings.of(output_dir="x"), "task_name", "output_dir", "data_dir")
    require(Settings.of(output_dir="x"), "output_dir")
