"""What users import, type and read: every name is listed here, and a change of one is a visible change of a list."""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import predict_ner
from common.command_line import CommandLine
from inference.predictor import NerPredictor
from inference.service import ServiceLimits, create_service
from tests.contracts import (
    FLAGS,
    HEAD_KEYS,
    IMPORTS,
    KEYS,
    LIGHTNING_FILES,
    METHODS,
    OPEN_KEYS,
    PREDICTION,
    RUN_FILES,
    SERVICE,
    TRAINING_FLAGS,
)
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import FinishedRun, read_json


def check(subject: str, found: Iterable[str], listed: str) -> None:
    """Compares names, in any order, with a list of this file; within parentheses the list may have spaces."""
    known = {re.sub(r"\s", "", name) for name in re.findall(r"[^\s(]+(?:\([^)]*\))?", listed)}
    names = {re.sub(r"\s", "_", name) for name in found}
    new, gone = sorted(names - known), sorted(known - names)
    message = f"{subject}: new {new}, gone {gone}: this is a change of contract: change the list only on purpose"
    assert new == gone == [], message


def test_a_difference_is_a_change_of_contract() -> None:
    check("names", ["b", "a(x,y=)"], "a(x, y=) b")
    with pytest.raises(AssertionError, match=r"names: new \['c'\], gone \['b'\]: this is a change of contract"):
        check("names", ["a", "c"], "a b")


def face(name: str, thing: Any) -> str:
    """``name(first,second=,*,third)`` of what can be called, with ``=`` where there is a default; else the name."""
    if not callable(thing) or (isinstance(thing, type) and name in ("Options", "config_class")):
        return name
    words: list[str] = []
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        words.append(f"{stars}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"{name}({','.join(word for word in words if word != 'self')})"


def methods(kind: type) -> Iterator[str]:
    """What a class of this project, or a base in it, defines without an underscore, and how it is called."""
    rooms = ("callbacks", "inference", "models", "processors")
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in rooms]
    for name in sorted({name for base in own for name in vars(base) if not name.startswith("_") or name == "__call__"}):
        thing = inspect.getattr_static(kind, name)
        yield face(name, getattr(kind, name) if isinstance(thing, classmethod | staticmethod) else thing)


@pytest.mark.parametrize("module", IMPORTS)
def test_names_to_import(module: str) -> None:
    found = importlib.import_module(module)
    listed = re.sub(r"\([^)]*\)", "", IMPORTS[module]).split()
    names = {*listed, *getattr(found, "__all__", [])}
    check(module, (face(name, getattr(found, name)) for name in names if hasattr(found, name)), IMPORTS[module])


@pytest.mark.parametrize("place", METHODS)
def test_methods_to_call(place: str) -> None:
    module, _, name = place.rpartition(".")
    inherited = METHODS["models.tagger.Tagger"] if place.startswith("models.Bert") else ""
    check(place, methods(getattr(importlib.import_module(module), name)), f"{inherited} {METHODS[place]}")


class Found(Exception):  # noqa: N818
    """Carries a parser out of a script."""


@pytest.mark.parametrize("script", FLAGS)
def test_flags_to_type(script: str) -> None:
    def found(parser: CommandLine, *_: Any) -> None:
        raise Found(parser)

    with patch.object(CommandLine, "parse_args", found), pytest.raises(Found) as end:
        importlib.import_module(script).main()
    names = {name for action in end.value.args[0]._actions for name in action.option_strings or [action.dest]}
    with_dashes = {f"--{name[2:].replace('_', '-')}" for name in names if "_" in name}
    if script.startswith("run_"):
        assert with_dashes <= names
    names -= with_dashes
    common = TRAINING_FLAGS if script.startswith("run_") else ""
    check(script, {name.removeprefix("--") for name in names - {"-h", "--help"}}, f"{common} {FLAGS[script]}")


def files_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield re.sub(r"events\.out\.tfevents\..*", "EVENTS", str(path.relative_to(folder)).replace(" ", "_"))


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
def test_files_of_a_run(run_name: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    checkpoint = sorted(run.folder.glob("checkpoint-*[0-9]"))[0].name
    others = {path.name for path in run.folder.glob("checkpoint-*")} - {checkpoint, "checkpoint-best"}
    names = (name for name in files_of(run.folder) if name.partition("/")[0] not in others)
    check(run_name, (name.replace(checkpoint, "checkpoint-STEP") for name in names), RUN_FILES)


def keys(content: Any, prefix: str = "") -> Iterator[str]:
    """``outer.inner`` for each key of JSON, except below the keys that depend on the data."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield f"{prefix}{name}"
            if name not in OPEN_KEYS:
                yield from keys(value, f"{prefix}{name}.")
    elif isinstance(content, list):
        for value in content:
            yield from keys(value, prefix)


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
@pytest.mark.parametrize("name", KEYS)
def test_keys_of_results(name: str, run_name: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    path = run.folder / name
    lines = path.read_text("utf-8").splitlines()
    found = set(keys([json.loads(line) for line in lines] if path.suffix == ".jsonl" else read_json(path)))
    if name == "config.json":  # what the head adds to the encoder's, and what transformers writes into each
        found -= read_json(Path(run.options["model_name_or_path"], name)).keys()
    check(f"{name} of {run_name}", found, f"{KEYS[name]} {HEAD_KEYS.get((run_name, name), '')}")


def test_files_of_a_run_under_lightning(encoder: Path, corpus_dir: Path, tmp_path: Path) -> None:
    call_lightning("run_pl_ner", **ner_options(encoder, corpus_dir, tmp_path, max_epochs=1))
    check("run_pl_ner", files_of(tmp_path / "run"), LIGHTNING_FILES)


def test_keys_of_a_prediction(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--model", str(crf_run.folder), "--device", "cpu", "--output", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr(sys, "argv", ["predict_ner.py", *words, "--text", "anna met bob near paris"])
    predict_ner.main()
    check("predict_ner.py", keys(read_json(tmp_path / "out.jsonl")), PREDICTION)


def test_what_the_service_takes_and_answers(softmax_run: FinishedRun) -> None:
    schema = create_service(NerPredictor.load(softmax_run.folder, "cpu"), ServiceLimits()).openapi()
    found = [
        f"{method.upper()}{path}:{','.join(sorted(one['responses']))}"
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    ]
    answers = schema["components"]["schemas"].items()
    found += [f"{name}.{key}" for name, answer in answers for key in answer["properties"]]
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    found += sorted(set(re.findall(r"'(texts?)'", str(body))))
    check("serve_ner.py", found, SERVICE)
