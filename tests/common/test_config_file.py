"""Config files: what is accepted, and the errors."""

import json
from pathlib import Path

import pytest
import yaml

from models import BertCrfForNer
from tools.command_line import parse_settings


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_config_file_holds_the_same_names_and_flags_win(tmp_path: Path, suffix: str, joined: bool) -> None:
    entries = {"learning_rate": 3e-5, "do_train": True, "task_name": "结果 😀", "logging_steps": -1, "seed": 3}
    path = tmp_path / f"run{suffix}"
    path.write_text(json.dumps(entries, indent="\t") if suffix == ".json" else yaml.safe_dump(entries), "utf-8")
    option = [f"--config_file={path}"] if joined else ["--config_file", str(path)]
    args = parse_settings(BertCrfForNer.Options, argv=["--seed=5", *option])
    assert (entries | {"seed": 5}).items() <= args.flat().items()


def test_a_config_file_may_write_numbers_as_yaml_reads_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 3e-5\nevaluate_during_training: no\n")
    args = parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)])
    assert args.optimisation.learning_rate == 3e-5
    assert not args.logging.evaluate_during_training


def test_a_config_file_may_nest_the_options_of_the_schedule(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  min_lr: 1e-6\n  num_cycles: 1\n")
    assert json.loads(
        parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)]).optimisation.lr_scheduler_kwargs
    ) == {"min_lr": 1e-6, "num_cycles": 1}


def test_an_empty_entry_of_a_config_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("cache_dir:\ntask_name: cner\n")
    args = parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)])
    assert args.model.cache_dir == ""


DEEP = 50_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.yaml", "seed: 2\nlearning_rat: 1\n", ":2: unrecognized --learning_rat: did you mean --learning_rate?"),
        ("run.yaml", "seed: 2\n\nmax_seq_length: 8", ":3: unrecognized --max_seq_length: did you mean --train_max_seq"),
        ("run.json", '{"seed": 2,\n"batch_size": 8}', ":2: unrecognized --batch_size: did you mean --per_gpu_train"),
        ("run.yaml", "config_file: other.yaml", ":1: unrecognized --config_file"),
        ("run.yaml", "- learning_rate\n", ": expected names with values"),
        ("run.json", "[1]", ": expected names with values"),
        ("run.yaml", "1: 2\nseed: 3", ":1: the name 1 is not text"),
        ("run.yaml", "seed: 3\nno: 2", ":2: the name False is not text"),
        ("run.yaml", "? [a, b]\n: 2", ":1: the name ['a', 'b'] is not text"),
        ("run.yaml", "seed: 1\ntask_name: a\nseed: 2", ": given more than once: seed (lines 1, 3)"),
        ("run.yaml", "lr_scheduler_kwargs:\n  a: 1\n  a: 2", ": given more than once: a (lines 2, 3)"),
        ("run.json", '{"seed": 1,\n"seed" : 2}', ": given more than once: seed (lines 1, 2)"),
        ("run.json", '{"lr_scheduler_kwargs":\n{"a": 1, "a": 2}}', ": given more than once: a (lines 2, 2)"),
        ("run.json", '{"seed": ' * DEEP + "1" + "}" * DEEP, ": nested too deeply"),
        ("run.yaml", "seed: " + "[" * 2000, ": nested too deeply"),
        ("run.yaml", "seed: " + "{a: " * 2000, ": nested too deeply"),
        ("run.yaml", "seed: 1\nlearning_rate: [1]", ":2: --learning_rate: the value is a list"),
        ("run.json", '{"label_list": ["O"]}', ":1: --label_list: the value is a list"),
        ("run.yaml", "task_name: {a: 1}", ":1: --task_name: the value is a mapping"),
        ("run.yaml", "seed: 1\nlearning_rate: [1\n", ":3: neither YAML nor JSON: "),
        ("run.yaml", "seed: 1\n--- \nseed: 2", ":2: neither YAML nor JSON: "),
        ("run.json", "{\n1", ":2: neither YAML nor JSON: "),
        ("run.json", '{"seed": "x"}', ":1: --seed x: must be a whole number"),
        ("run.json", '{"seed": 1,\n"max_grad_norm": NaN}', ":2: --max_grad_norm NaN: must be a number"),
        ("run.json", '{"seed": ' + "9" * 100 + "}", ":1: --seed 999"),
        ("run.yaml", "seed: true", ":1: --seed true: must be a whole number"),
        ("run.yaml", "", ": the file is empty"),
        ("run.json", " \n", ": the file is empty"),
        ("run.yaml", "# nothing", ": expected names with values"),
        ("run.yaml", b"seed: 1\ntask_name: caf\xe9", ":2: byte 0xe9 is not UTF-8"),
        ("run.json", '{"seed": 1}'.encode("utf-16"), ":1: byte 0xff is not UTF-8"),
        ("run.yaml", b"seed: \x00", ": unacceptable character"),
    ],
)
def test_a_bad_config_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit) as ended:
        parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f"{path}{said}" in message
    assert len(message) < 500


def test_the_faults_of_file_and_flags_come_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: x\nepochs: 3\n4: 5\nfp16: true\nmax_steps: 7\n")
    with pytest.raises(SystemExit):
        parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path), "--bf16", "--max_steps=0"])
    said = capsys.readouterr().err
    places = [f"{path}{end}" for end in (":3: the name 4", ":2: unrecognized --epochs: did", ":1: --seed x: must")]
    assert all(part in said for part in (*places, "  --max_steps 0: must"))


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    path.write_text('\ufeff{"seed": 3}', "utf-8")
    assert parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)]).optimisation.seed == 3


def test_values_of_yaml_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task_name: 007\ntag_column: 1:30\nlabels: yes\noutput_dir: 2026-01-02\nseed: 1_000\n")
    args = parse_settings(BertCrfForNer.Options, argv=["--config_file", str(path)])
    assert (args.data.task_name, args.data.tag_column, args.data.labels, args.actions.output_dir) == (
        "007",
        "1:30",
        "yes",
        "2026-01-02",
    )
    assert args.optimisation.seed == 1000


def test_a_missing_config_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(BertCrfForNer.Options, argv=["--config_file=nowhere.yaml"])
    assert "nowhere.yaml: there is no such config file" in capsys.readouterr().err
