"""Every benchmark prints its table, at a size where the timings mean nothing but the comparisons hold."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from benchmarks import distributed, gpu, heads, same_results, train
from benchmarks.serve import mixed_texts
from benchmarks.train_peers import CONTESTANTS
from tests.helpers import ROOT, write_corpus
from tests.tools.forks import Forked
from tests.tools.runs import call_script, encoder_without_dropout, flags, options_of_run, read_json, start_script


@pytest.fixture(scope="module")
def home(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and a softmax run trained on it."""
    home = tmp_path_factory.mktemp("benchmarks")
    corpus = write_corpus(home / "corpus", {"train": 40, "dev": 20})
    call_script("run_ner_softmax", **options_of_run(encoder, corpus, home), do_train=True, from_scratch=True)
    return home


def table_of(module: str, *arguments: object) -> str:
    """The output of a benchmark."""
    done = start_script("-m", f"benchmarks.{module}", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The outcome of each check of a dry run, by the first word of its name; checks run in forks, which start fast."""
    folder = tmp_path_factory.mktemp("gpu_check")

    def in_a_fork(words: list[str], limit: float) -> tuple[str, str]:
        done = Forked(words, []).end()
        return done.stdout + done.stderr, f"exit status {done.returncode}" if done.returncode else ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "run_python", in_a_fork)
        patch.setattr(sys, "argv", ["gpu.py", "--dry_run", "--output_dir", str(folder)])
        gpu.main()
    report = (folder / "gpu.md").read_text("utf-8")
    found = json.loads((folder / "gpu.json").read_text("utf-8"))["checks"]
    assert all(f"\n## {check['name']}\n" in report for check in found if check["output"])
    return {check["name"].partition(" ")[0]: check for check in found}


def test_everything_for_a_gpu_runs_at_a_tiny_size_on_a_cpu(checked: dict[str, dict[str, Any]]) -> None:
    assert [name for name, check in checked.items() if check["outcome"] != "passed"] == ["DataParallel"]
    assert checked["DataParallel"]["outcome"] == "skipped"
    assert checked["tests"]["figures"]["skipped"] > 5
    assert {"softmax ms", "CRF ms", "CRF to softmax"} == checked["training"]["figures"].keys()
    for name in ("crf", "softmax", "DistributedDataParallel", "Lightning"):
        assert {"words_per_second", "utilisation", "memory_gib", "skipped_steps"} <= checked[name]["figures"].keys()


def test_a_check_that_fails_says_what_to_do(tmp_path: Path) -> None:
    failing = gpu.Check("broken", ["-c", "print('x 3.5'); raise SystemExit(2)"], 60, "mend it", {"x": r"x ([\d.]+)"})
    slow = gpu.Check("slow", ["-c", "print('begun', flush=True); import time; time.sleep(60)"], 3, "wait")
    outcomes = [gpu.run(check, check.limit) for check in (failing, slow)]
    assert [one.outcome for one in outcomes] == ["failed", "failed"]
    assert outcomes[0].figures == {"x": 3.5}
    report = gpu.as_markdown(outcomes, "a machine")
    assert "exit status 2: mend it" in report
    assert "stopped after 3 s: wait" in report
    assert "begun" in report


def test_crf(checked: dict[str, dict[str, Any]]) -> None:
    printed = checked["CRF"]["output"]
    assert "1 threads" in printed
    assert re.findall(r"\(B, W, C\) = (\(.*?\))", printed) == ["(3, 6, 4)", "(2, 3, 5)"]
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ours")]
    assert [row[0].strip() for row in rows] == ["ours, torch", "ours, cpp"] * 2
    assert all(float(row[5]) < 1e-5 for row in rows)


def test_long_texts_are_decoded_as_in_double_precision() -> None:
    printed = table_of("crf_decoding", "--rows", 3, "--tags", 5)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert [row[:4] for row in rows] == [[backend, "5", "3", "0"] for backend in ("cpp", "torch", "graph")]


def test_legal_tags_are_found_as_in_plain_python() -> None:
    printed = table_of("crf_decoding", "--legal", "--rows", 40, "--tags", 4)
    (row,) = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert row[:3] == ["9", "40", "0"]
    assert float(row[5]) > 0


def cells_of(printed: str) -> list[dict[str, str]]:
    """Rows of a Markdown table by column."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


def test_data_and_the_command_for_all_tables(tmp_path: Path) -> None:
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text("Before\n<!-- table: data -->\n<!-- end -->\n<!-- table: crf -->\nkept\n<!-- end -->\n")
    given = ("--data", tmp_path, "--encoder", "none", "--output_dir", tmp_path / "out", "--docs", document.parent)
    only = ("--only", "data", "--", "--sentences", 300)
    assert "data" in table_of("tables", *given, *only)
    written = document.read_text()
    assert "python -m benchmarks.data --sentences 300" in written
    assert "<!-- table: crf -->\nkept\n<!-- end -->" in written
    (row,) = rows = cells_of(written)
    assert int(row["sentences"]) == 300
    assert int(row["words"].replace(",", "")) > 3000
    measured = [float(value) for name, value in row.items() if "µs" in name]
    assert len(measured) == 4
    assert min(measured) > 0
    document.write_text("<!-- table: data --><!-- end -->")  # what was measured is not measured again
    table_of("tables", *given, *only)
    assert cells_of(document.read_text()) == rows


def test_parts_of_a_step(home: Path, encoder: Path) -> None:
    options = options_of_run(encoder, home / "corpus", home) | {"max_steps": 8, "from_scratch": True}
    del options["output_dir"]
    printed = table_of("step_parts", "run_ner_crf.py", *flags(**options))
    assert printed.startswith("3 steps of")  # and nothing else, since it goes into the documentation
    rows = cells_of(printed)
    assert [row["part"].partition(":")[0] for row in rows] == ["batches", "encoder", "head", "optimiser"]
    assert min(float(row["ms per step"]) for row in rows) > 0
    assert sum(float(row["share"].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.3)


def test_word_cutting() -> None:
    printed = table_of("word_cutting", ROOT / "datasets" / "sample", "--tweets", 30)
    assert re.search(r"sample .* auto_token .* 600 .* 100\.0 % .* 100\.0 %", printed)
    assert re.search(r"generated tweets .* token .* 30 .* 100\.0 %", printed)


def test_predict(home: Path) -> None:
    texts = home / "corpus" / "dev.txt"
    size = ("--sentences", 6, "--documents", 2, "--rounds", 1, "--device", "cpu")
    printed = table_of("predict", "--model", home / "run", "--texts", texts, *size)
    assert "8 texts" in printed
    others = {row[""]: row["texts with other entities"] for row in cells_of(printed)}
    assert list(others) == [
        *("pipeline fp32", "pipeline bf16", "batches fp32", "ours fp32", "ours bf16", "ours int8", "ours onnx")
    ]
    assert others["batches fp32"] == others["ours fp32"] == others["ours onnx"] == "0"


@pytest.mark.parametrize("library", ["flair", "spacy"])
def test_libraries_in_an_environment_of_their_own(library: str, home: Path, tmp_path: Path) -> None:
    python = os.environ.get(f"{library.upper()}_PYTHON")
    if not python:
        pytest.skip(f"set {library.upper()}_PYTHON to the Python of an environment, see benchmarks/other_libraries.py")
    texts = home / "corpus" / "dev.txt"
    size = ("--sentences", 6, "--documents", 2, "--rounds", 1, "--device", "cpu", f"--{library}_python", python)
    rows = cells_of(table_of("predict", "--model", home / "run", "--texts", texts, *size))
    assert rows[-1][""] == library
    assert float(rows[-1]["texts/s"]) > 0


def test_serve(checked: dict[str, dict[str, Any]]) -> None:
    printed = checked["service"]["output"]
    assert "12 texts of 5 to 60 characters" in printed
    assert "4 clients" in printed
    assert re.search(r"lost\D+0 ", printed)
    assert re.search(r"different from the predictor's\D+0 ", printed)


def test_texts_for_the_service_have_lengths_from_the_shortest_to_the_longest() -> None:
    lengths = sorted(map(len, mixed_texts(["word"] * 10, 200, 8, 80)))
    assert 8 <= lengths[0] < 12
    assert 60 < lengths[-1] <= 80


def test_heads(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["heads", str(home / "run"), "--rounds", "1"])
    heads.main()
    assert re.search(r"run\W+[\d.]+ M\W+[\d,]+\W+1\.00\W+[\d,]+\W+1\.00", capsys.readouterr().out)


def test_precision(checked: dict[str, dict[str, Any]]) -> None:
    assert checked["precisions"]["figures"].keys() == {"float32 words/s", "bfloat16 words/s"}
    assert re.search(r"float32\W+[\d,]+\W+1.00", checked["precisions"]["output"])


def test_training_is_compared_with_other_trainers(home: Path, encoder: Path, tmp_path: Path) -> None:
    python = os.environ.get("FLAIR_PYTHON", "")
    shutil.copytree(encoder, tmp_path / "encoder")
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(tmp_path / "encoder")
    options = options_of_run(tmp_path / "encoder", home / "corpus", home) | {"num_train_epochs": 2.0, "no_cuda": True}
    size = ["--rounds", "1", "--sentences", "30", "--contestants", "crf", "trainer", "padded_crf"]
    size += ["--flair_python", python]
    printed = table_of("train", *flags(**options | {"output_dir": tmp_path / "out"}), *size)
    names = ["crf", "trainer", "padded_crf", *(["flair"] if python else [])]
    rows = cells_of(printed)
    assert [row[""] for row in rows[:3]] == [CONTESTANTS[name] for name in names[:3]]
    assert rows[1]["against trainer"] == "1.00"
    results = {name: read_json(tmp_path / "out" / f"{name}_0.json") for name in names}
    # All texts of two epochs but the first step; only padding differs.
    assert len({(one["sentences"], one["tokens"] > 0) for one in results.values()}) == 1
    assert results["crf"]["computed_tokens"] <= results["trainer"]["computed_tokens"]
    assert results["trainer"]["computed_tokens"] < results["padded_crf"]["computed_tokens"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--contestants", "crf", "flair"], "--contestants flair: expected some of crf, softmax, trainer"),
        (["--num_train_epochs", "0.5"], "whole number"),
        (["--casing"], "--casing True: the other trainers do not have it"),
        (["--sentences", "4", "--num_train_epochs", "1"], "4 sentences are one step, which is not timed"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    given: list[str],
    message: str,
    home: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = options_of_run(encoder, home / "corpus", home) | {"output_dir": home / "race"}
    monkeypatch.setattr(sys, "argv", ["train.py", *flags(**options), *given])
    with pytest.raises((ValueError, SystemExit)) as refusal:
        train.main()
    assert message in str(refusal.value) + capsys.readouterr().err


def test_distributed(
    home: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = encoder_without_dropout(encoder, home / "calm_encoder")  # ranks draw other dropout than one process does
    options = options_of_run(calm, home / "corpus", home) | {"num_train_epochs": 1.0, "from_scratch": True}
    del options["output_dir"]
    monkeypatch.setattr(distributed, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["distributed", "1,2", "run_ner_softmax.py", *flags(**options)])
    monkeypatch.chdir(ROOT)
    distributed.main()
    losses = re.findall(r"(?m)^\W*([12])\W+[\d,]+\W+[\d.]+\W+([\d.]+)\W*$", capsys.readouterr().out)
    assert [count for count, _ in losses] == ["1", "2"]
    assert float(losses[0][1]) == pytest.approx(float(losses[1][1]), rel=1e-5)


def test_two_commits_with_the_same_code_give_the_same_results() -> None:
    assert "softmax: equal" in table_of("same_results", "HEAD", "HEAD", "--runs", "softmax", "--steps", 2)


def test_every_difference_between_two_runs_is_listed(home: Path, tmp_path: Path) -> None:
    left, right = home / "run", tmp_path / "run"
    shutil.copytree(left, right)
    assert list(same_results.compare(left, right)) == []
    weights = load_file(right / "model.safetensors")
    weights["classifier.bias"][0] += 1e-4
    save_file(weights, right / "model.safetensors")
    results = read_json(right / "train_results.json") | {"loss": 3.0, "seconds": 1e9}  # the clock does not count
    (right / "train_results.json").write_text(json.dumps(results))
    (right / "test_predictions.jsonl").write_text("{}\n")
    found = "\n".join(same_results.compare(left, right))
    assert re.search(r"model.safetensors: classifier.bias differs by up to 1.00e-04", found)
    assert re.search(r"train_results.json: loss is [\d.]+, then 3.0", found)
    assert "test_predictions.jsonl: only in the second" in found
    assert len(found.splitlines()) == 3


def test_label_errors(home: Path, encoder: Path, tmp_path: Path) -> None:
    options = {**options_of_run(encoder, home / "corpus", home), "output_dir": tmp_path / "errors"}
    options |= {"from_scratch": True, "num_train_epochs": 10.0, "folds": 2, "share": 0.1, "report_to": "none"}
    printed = table_of("label_errors", *flags(**options, evaluate_during_training=False, min_suspicion=0.05))
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in printed.splitlines() if line.startswith("| ")}
    assert {"type", "dropped", "all"} <= rows.keys()
    corrupted = json.loads((tmp_path / "errors" / "corrupted.json").read_text("utf-8"))
    assert (
        int(rows["all"][0]) == len(corrupted) == round(0.1 * (home / "corpus" / "train.txt").read_text().count(" B-"))
    )
    assert all(before != after for _, _, before, after in corrupted)


def test_active_learning(home: Path, encoder: Path, tmp_path: Path) -> None:
    options = {**options_of_run(encoder, home / "corpus", home), "output_dir": tmp_path / "learning"}
    options |= {"from_scratch": True, "max_steps": 40, "evaluate_during_training": False, "report_to": "none"}
    of_simulation = ["--seeds", "1", "--strategies", "random", "path", "--shares", "0.2", "0.5", "1", "--target", "0.8"]
    printed = table_of("active_learning", *flags(**options), *of_simulation)
    assert "80% of the F1 of all 40 sentences" in printed
    assert (tmp_path / "learning" / "active_learning.md").read_text("utf-8").strip() in printed
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert rows == ["chosen by", "random", "path"]
    weights = list((tmp_path / "learning").rglob("model.safetensors"))
    written = {path: path.stat().st_mtime_ns for path in weights}
    assert table_of("active_learning", *flags(**options), *of_simulation).endswith(printed.splitlines()[-1] + "\n")
    assert {path: path.stat().st_mtime_ns for path in weights} == written
