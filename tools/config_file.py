"""Config files: YAML or JSON with the names of the flags, each entry read with its place."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_ADVICE = "expected names with values, as in 'learning_rate: 3e-5'"


class Entry(NamedTuple):
    """A setting as a config file has it; a value of YAML is the text that is written there."""

    place: str
    name: Any
    value: Any


def read_config_file(path: Path) -> tuple[list[Entry], list[str]]:
    """The entries that have a value, as texts, and what is wrong with the others.

    Raises:
        ValueError: the file cannot be read as names with values.
    """
    entries, faults = list[Entry](), list[str]()
    for place, name, value in _all_entries(path):
        if isinstance(value, dict) and str(name).endswith("_kwargs"):
            value = json.dumps(value)
        if not isinstance(name, str):
            faults.append(f"{place}the name {name!r} is not text; {_ADVICE}")
        elif isinstance(value, dict | list):
            kind = "mapping" if isinstance(value, dict) else "list"
            faults.append(f"{place}--{name}: the value is a {kind}; {_ADVICE}")
        elif value is not None:
            entries.append(Entry(place, name, str(value)))
    return entries, faults


def _all_entries(path: Path) -> list[Entry]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such config file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if not text.strip():
            raise ValueError(f"the file is empty; {_ADVICE}")
        return list((_of_json if path.suffix == ".json" else _of_yaml)(path, text))
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise ValueError(f"{path}:{line}: byte {byte:#x} is not UTF-8; save the file as UTF-8") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; {_ADVICE}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: not YAML: {error.problem}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}, column {error.colno}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


class _Loader(yaml.SafeLoader):
    """Refuses names that stand twice in a mapping; YAML itself would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _refuse_duplicates_of_yaml(node)
        return super().construct_mapping(node, deep)


def _of_yaml(path: Path, text: str) -> Iterator[Entry]:
    """A name is what YAML takes for text: ``1``, ``no`` and ``null`` are something else. Values stay as written."""
    loader = _Loader(text)
    node = loader.get_single_node()
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(_ADVICE)
    _refuse_duplicates_of_yaml(node)
    for key, value in node.value:
        as_written = isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null")
        content = value.value if as_written else loader.construct_object(value, deep=True)
        name = key.value if key.tag.endswith(":str") else loader.construct_object(key, deep=True)
        yield Entry(f"{path}:{key.start_mark.line + 1}: ", name, content)


def _of_json(path: Path, text: str) -> Iterator[Entry]:
    def lines(name: str) -> list[int]:
        found = re.finditer(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:", text)
        return [text.count("\n", 0, match.start()) + 1 for match in found]

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_duplicates([name for name, _ in pairs], lines)
        return dict(pairs)

    entries = json.loads(text, object_pairs_hook=unique)
    if not isinstance(entries, dict):
        raise ValueError(_ADVICE)
    for name, value in entries.items():
        yield Entry(f"{path}:{next(iter(lines(name)), 1)}: ", name, value)


def _refuse_duplicates_of_yaml(node: yaml.MappingNode) -> None:
    places = [(str(key.value), key.start_mark.line + 1) for key, _ in node.value]
    _refuse_duplicates([name for name, _ in places], lambda name: [line for other, line in places if other == name])


def _refuse_duplicates(names: Sequence[str], lines: Callable[[str], list[int]]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = (f"{name} (lines {', '.join(map(str, lines(name)))})" for name in twice)
        raise ValueError(f"given more than once: {', '.join(places)}")
