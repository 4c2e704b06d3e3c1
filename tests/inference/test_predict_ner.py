"""The script ``predict_ner.py`` as users call it."""

import gzip
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import predict_ner
from inference.asked import Asked
from inference.predictor import NerPredictor
from tests.tools.forks import Forked
from tests.tools.runs import FinishedRun, start_script
from tools.script import run_script

TEXTS = ["anna met bob", "", "the man left new york ."]


def call(monkeypatch: pytest.MonkeyPatch, run: FinishedRun, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict_ner.py", "--model", str(run.folder), "--device", "cpu", *flags])
    run_script(predict_ner.main)


def lines_of(path: Path) -> list[dict[str, Any]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]


def test_files_become_lines_in_order(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"id": 9, "text": "carol\\nleft"}\n'))
    files = [str(tmp_path / name) for name in ("a.txt", "b.jsonl.gz")]
    call(monkeypatch, crf_run, *files, "--text", "dan lee", "--output", str(tmp_path / "out.jsonl.gz"))
    records = lines_of(tmp_path / "out.jsonl.gz")
    assert [record["id"] for record in records] == ["text:1", *(f"{files[0]}:{number}" for number in (1, 2, 3)), 9]
    texts = [record["text"] for record in records]
    assert texts == ["dan lee", *TEXTS, "carol\nleft"]
    expected = NerPredictor.load(crf_run.folder, "cpu")(texts)
    assert [[entity["surface"] for entity in record["entities"]] for record in records] == [
        [entity.surface for entity in found] for found in expected
    ]
    assert sum(map(len, expected)) >= 3


def test_a_file_may_be_one_text(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes(b"anna met\r\nbob\n")
    call(monkeypatch, crf_run, str(tmp_path / "a.txt"), "--unit", "file", "--output", str(tmp_path / "out.jsonl"))
    (record,) = lines_of(tmp_path / "out.jsonl")
    assert record["text"] == "anna met\r\nbob\n"


@pytest.mark.parametrize("flags", [["--dtype=bf16"], ["--dtype=int8"], ["--batch_tokens=64"], ["--word_unit=char"]])
def test_every_way_of_computing_is_taken(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    call(monkeypatch, crf_run, "--text", TEXTS[0], *flags, "--output", str(tmp_path / "out.jsonl"))
    (record,) = lines_of(tmp_path / "out.jsonl")
    assert record["text"] == TEXTS[0]
    assert all(record["text"][one["start"] : one["end"]] == one["surface"] for one in record["entities"])


def test_characters_are_words_when_asked(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--format", "conll", "--word_unit", "char", "--output", str(tmp_path / "out.txt")]
    call(monkeypatch, crf_run, "--text", "a bc", *options)
    assert [line.split(" ")[0] for line in (tmp_path / "out.txt").read_text().split()[::2]] == ["a", "b", "c"]


def test_the_standard_input_goes_to_the_standard_output(
    crf_run: FinishedRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("anna\nboб\n".encode())))
    call(monkeypatch, crf_run, "-", "--format", "conll")
    assert [line.split(" ")[0] for line in capfd.readouterr().out.splitlines()] == ["anna", "", "boб", ""]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (b"anna\nb\xffb\n", [], "a.txt:2: not UTF-8"),
        (b"anna\n", ["none.txt"], "none.txt: there is no such file"),
        (b"anna\n", ["docs"], "docs: is a folder; name the files in it"),
        (b"anna\n", ["--device=abacus"], "device 'abacus'"),
        (b"anna\n", ["--batch_tokens=0"], "--batch_tokens 0: must be a whole number, at least 1"),
    ],
)
def test_what_cannot_be_done_is_said(
    crf_run: FinishedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, crf_run, str(tmp_path / "a.txt"), *flags, "--output", str(tmp_path / "out.jsonl"))
    assert message in f"{error.value} {capsys.readouterr().err}"


def test_what_was_there_stays_until_all_is_written(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "a.txt", tmp_path / "out.jsonl"
    source.write_bytes(b"anna\nb\xffb\n")
    output.write_text("of before")
    with pytest.raises(SystemExit, match=r"a\.txt:2: not UTF-8 .* or give --replace_bad_utf8"):
        call(monkeypatch, crf_run, str(source), "--output", str(output))
    assert output.read_text() == "of before"
    source.write_bytes(b"anna\n")
    call(monkeypatch, crf_run, str(source), "--output", str(output))
    assert len(lines_of(output)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out.jsonl"]


def test_types_that_brat_cannot_write_are_refused_before_a_text_is_read(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(crf_run.folder, tmp_path / "run")
    config = folder / "config.json"
    config.write_text(config.read_text("utf-8").replace('-PER"', '-big PER"'), "utf-8")
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, replace(crf_run, folder=folder), "-", "--format", "brat", "--output", str(tmp_path / "out"))
    assert "brat cannot write types that are empty or contain white space: 'big PER'" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_is_read_is_not_written_over(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(b"anna\n")
    (tmp_path / "b.txt").symlink_to(source)
    for output, message in ((tmp_path / "b.txt", "is also an input"), (tmp_path, "is a folder; name a file in it")):
        with pytest.raises(SystemExit, match=message):
            call(monkeypatch, crf_run, str(source), "--output", str(output))
    assert source.read_bytes() == b"anna\n"


def test_a_pipe_or_device_is_written_to_as_it_is(crf_run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, crf_run, "--text", "anna", "--output", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_reader_that_has_enough_is_no_error(crf_run: FinishedRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    flags = [f"--model={crf_run.folder}", "--text=anna"]
    run = Forked(["predict_ner.py"], flags, stdout=tmp_path / "pipe")
    (tmp_path / "pipe").open("rb").close()  # once the script has opened its end
    done = run.end()
    assert done.returncode == 0, done.stderr
    assert "pipe" not in done.stderr.lower()


def test_broken_bytes_are_replaced_when_asked(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"anna\nb\xffb\n")
    call(monkeypatch, crf_run, str(tmp_path / "a.txt"), "--replace_bad_utf8", "--output", str(tmp_path / "out.jsonl"))
    assert [record["text"] for record in lines_of(tmp_path / "out.jsonl")] == ["anna", "b\ufffdb"]


@pytest.mark.parametrize("format", ["jsonl", "conll", "tsv", "html", "brat"])
def test_lone_surrogates_are_replaced_and_counted(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, format: str
) -> None:
    monkeypatch.setattr("predict_ner.setup_logging", lambda: None)  # which would take caplog's handler away
    source, output = tmp_path / "a.jsonl", tmp_path / "out"
    source.write_text('{"text": "anna met bob"}\n{"text": "\\ud83d anna \\udfff\\ud83d\\ude00 bob"}\n')
    call(monkeypatch, crf_run, str(source), "--text", "\udcff bob", "--format", format, "--output", str(output))
    assert f"{source}: 2 lone surrogates, such as \\ud83d, were replaced by U+FFFD" in caplog.text
    assert "--text: 1 lone surrogates" in caplog.text
    if format == "jsonl":
        records = lines_of(output)
        assert [record["text"] for record in records] == ["\ufffd bob", "anna met bob", "\ufffd anna \ufffd😀 bob"]
        places = [[(one["start"], one["surface"]) for one in record["entities"]] for record in records]
        assert (10, "bob") in places[2]
        assert all(
            text["text"][start:].startswith(surface)
            for text, found in zip(records, places, strict=True)
            for start, surface in found
        )


def test_nothing_to_read_is_an_error_of_usage(
    crf_run: FinishedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, crf_run)
    assert "nothing to read" in capsys.readouterr().err


def test_only_results_reach_the_standard_output(crf_run: FinishedRun) -> None:
    done = start_script("predict_ner.py", model=crf_run.folder, text="anna met bob", device="cpu")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["id"] == "text:1"


def entities_asked_for(run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[Any]:
    output = tmp_path / f"asked{len(list(tmp_path.iterdir()))}.jsonl"
    texts = [flag for text in TEXTS for flag in ("--text", text or " ")]
    call(monkeypatch, run, *texts, "--output", str(output), *flags)
    return [entity for record in lines_of(output) for entity in record["entities"]]


def test_entities_are_given_by_their_probability(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*flags: str) -> list[Any]:
        return entities_asked_for(crf_run, tmp_path, monkeypatch, *flags)

    def keys(entities: list[Any]) -> set[tuple[str, int, int]]:
        return {(one["type"], one["start"], one["end"]) for one in entities}

    predicted, candidates = found(), found("--candidates", "--threshold", "0.0001")
    assert keys(predicted) < keys(candidates)
    confidences = {(one["type"], one["start"], one["end"]): one["confidence"] for one in candidates}
    for one in predicted:
        assert confidences[one["type"], one["start"], one["end"]] == pytest.approx(one["confidence"], abs=1e-5)
    middle = sorted(confidences.values())[len(confidences) // 2]
    some = found("--candidates", "--threshold", str(middle))
    assert keys(some) == {key for key, value in confidences.items() if value >= middle}
    assert keys(found("--candidates")) == {key for key, value in confidences.items() if value >= 0.01}
    (text,) = NerPredictor.load(crf_run.folder, "cpu", asked=Asked(threshold=0.0001))(TEXTS[-1:])
    places = [place for one in text for place in range(one.start, one.end)]
    assert len(places) == len(set(places)) > 0
    assert keys(found("--recall", "0.9")) <= keys(candidates)
    assert "on dev they give precision" in capsys.readouterr().err
    assert keys(found("--precision", "0.9")) <= keys(candidates)
    assert keys(found("--candidates", "--max_missed", "0.7", "--certainty", "0.5")) <= keys(candidates)
    assert "at most 70.0 % missed with certainty 50 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--threshold", "0"], "--threshold"),
        (["--recall", "1.5"], "--recall"),
        (["--recall", "0.9", "--precision", "0.9"], "not allowed with"),
        (["--max_missed", "0.001"], "cannot be guaranteed"),
        (["--recall", "0.9", "--certainty", "0.9"], "no effect without --max_missed"),
    ],
)
def test_impossible_wishes_are_refused(
    crf_run: FinishedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    error: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        entities_asked_for(crf_run, tmp_path, monkeypatch, *flags)
    assert error in str(ended.value) + capsys.readouterr().err


def test_recall_needs_the_scores_of_dev(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(crf_run.folder, tmp_path / "run")
    (tmp_path / "run" / "eval_dial.json").unlink()
    with pytest.raises(SystemExit, match="--do_eval first"):
        entities_asked_for(replace(crf_run, folder=tmp_path / "run"), tmp_path, monkeypatch, "--recall", "0.9")
