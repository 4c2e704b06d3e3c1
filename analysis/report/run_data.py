"""What the report reads from a run folder."""

import json
import shlex
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tensorboardX.proto.event_pb2 import Event

from analysis.dial import Dials
from analysis.documents import ScoredDocument, read_documents
from callbacks.trackers import transition_scores
from common.run_files import RunFolder
from models.heads.transitions import legal_matrix
from models.tagger import Tagger
from tools.heads import head_of_folder

_SPLITS = {"dev": "do_eval", "test": "do_predict"}
_ANALYSED = {"intervals", "schemes", "errors", "confusion", "lengths"}


@dataclass
class Split:
    """The scores of a split, as in ``eval_results.json``, its documents, and its dials if the head has candidates."""

    name: str
    results: dict[str, Any]
    documents: list[ScoredDocument]
    dials: Dials | None

    @property
    def has_confidences(self) -> bool:
        return all(len(one.predicted) == len(one.confidences) for one in self.documents)


@dataclass
class Transitions:
    """Transition scores of a CRF.

    Args:
        tags: names of the C tags.
        scores: see `callbacks.trackers.transition_scores`.
    """

    tags: list[str]
    scores: NDArray[np.float64]

    @property
    def largest(self) -> float:
        """The largest absolute score, for the colours."""
        return float(np.nanmax(np.abs(self.scores))) or 1.0


@dataclass
class RunData:
    """What a run folder holds.

    Args:
        head: name of the head.
        missing: commands that create what is not there.
    """

    folder: Path
    head: str
    arguments: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    splits: list[Split]
    scalars: dict[str, dict[int, float]]
    transitions: Transitions | None
    missing: dict[str, str]


def read_run(folder: Path, named: str = "") -> RunData:
    """Read a run folder.

    Args:
        named: the head of the run if it is not built in, as ``module:Class``.

    Raises:
        ValueError: the folder holds no run that finds entities, or an unknown head.
    """
    files = RunFolder(folder)
    if not files.config.is_file():
        raise ValueError(f"{folder} holds no run: there is no {files.config.name}; name the --output_dir of a run")
    config, environment = _json_of(files.config), _json_of(files.environment)
    head = head_of_folder(folder, named)
    splits, missing = [], {}
    for name, action in _SPLITS.items():
        results, documents = files.results(name), files.documents(name)
        if documents.is_file() and set(found := _json_of(results)) >= _ANALYSED:
            dials = Dials.read(files.dial(name)) if files.dial(name).is_file() else None
            splits.append(Split(name, found, read_documents(documents), dials))
        elif results.is_file() or name == "dev" or not files.predictions.is_file():  # otherwise the split has no labels
            missing[f"Scores and sentences of {name}"] = _command(folder, head, action)
    scalars = read_scalars(files.tensorboard)
    if not scalars:
        missing["Training curves"] = _command(folder, head, "do_train")
    for split in splits:
        if not split.has_confidences:
            missing[f"Confidences of {split.name}"] = _command(folder, head, _SPLITS[split.name])
    return RunData(
        folder,
        head.title or head.__name__,
        _json_of(files.settings),
        config,
        environment,
        splits,
        scalars,
        _transitions(files.weights, config),
        missing,
    )


def _json_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _command(folder: Path, head: type[Tagger], action: str) -> str:
    paths = {"config_file": RunFolder(folder).settings, "output_dir": folder}
    actions = {name: name == action for name in ("do_train", "do_eval", "do_predict")}
    return shlex.join(["python", head.script, *(f"--{name}={value}" for name, value in (paths | actions).items())])


def _transitions(weights: Path, config: Mapping[str, Any]) -> Transitions | None:
    if not weights.is_file():
        return None
    with safe_open(weights, "pt") as file:
        if "crf.transitions" not in file.keys() or len(config["id2label"]) != len(file.get_tensor("crf.transitions")):  # noqa: SIM118
            return None
        names = ("transitions", "start_transitions", "end_transitions")
        inner, start, end = (file.get_tensor(f"crf.{name}").double() for name in names)
    tags = [config["id2label"][str(tag)] for tag in range(len(start))]
    return Transitions(tags, transition_scores(inner, start, end, legal_matrix(config.get("crf_legal"), len(tags))))


_LENGTH, _CHECKSUM = struct.Struct("<Q"), 4


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The value of each tag at each step, from all event files of a folder."""
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    for step, value in event_values(folder):
        if value.HasField("simple_value"):
            scalars[value.tag][step] = value.simple_value
    return dict(scalars)


def event_values(folder: Path) -> Iterator[tuple[int, Any]]:
    """Steps and ``Summary.Value``s of all event files; a file ends at a record that a killed run left incomplete."""
    for path in sorted(folder.glob("events.*")):
        for event in _events(path.read_bytes()):
            for value in event.summary.value:
                yield event.step, value


def _events(content: bytes) -> Iterator[Any]:
    position = 0
    while position + _LENGTH.size <= len(content):  # a record: length, its checksum, event, its checksum
        (length,) = _LENGTH.unpack_from(content, position)
        start = position + _LENGTH.size + _CHECKSUM
        position = start + length + _CHECKSUM
        if position <= len(content):
            yield Event.FromString(content[start : start + length])
