"""How often a run opens its data."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import datasets
import pytest

from tests.tools.runs import call_script, options_of_run

_counted: list[Counter[str]] = []


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _counted and isinstance(arguments[0], str | os.PathLike):
        _counted[-1][Path(arguments[0]).name] += 1


sys.addaudithook(_count)  # there is no way to take it off


@contextmanager
def opened_files() -> Iterator[Counter[str]]:
    """Counts by name how often files are opened."""
    _counted.append(Counter())
    yield _counted[-1]
    _counted.pop()


ACTIONS = {"do_train": True, "do_eval": True, "do_predict": True, "max_steps": 2, "from_scratch": True}


@pytest.mark.parametrize("script", ["run_ner_crf", "run_ner_softmax"])
def test_a_file_is_parsed_once_and_not_at_all_when_it_is_cached(
    script: str, encoder: Path, corpus_dir: Path, tmp_path: Path
) -> None:
    options = options_of_run(encoder, corpus_dir, tmp_path) | ACTIONS
    with opened_files() as first:
        call_script(script, **options)
    assert all(first[f"{split}.txt"] <= 3 for split in ("train", "dev", "test"))  # digest, layout, content
    with opened_files() as second:
        call_script(script, **options, overwrite_output_dir=True)
    assert [second[f"{split}.txt"] for split in ("train", "dev", "test")] == [1, 1, 1]  # digest


def test_a_data_set_is_loaded_once_per_split(encoder: Path, tmp_path: Path) -> None:
    rows = [{"tokens": ["anna", "met", "bob"], "tags": ["B-PER", "O", "B-PER"]}] * 20
    folder = tmp_path / "set"
    for split in ("train", "validation", "test"):
        datasets.Dataset.from_list(rows).to_json(str(folder / f"{split}.jsonl"))
    options = options_of_run(encoder, tmp_path, tmp_path) | ACTIONS | {"data_dir": "", "dataset_name": str(folder)}
    with patch.object(datasets, "load_dataset", wraps=datasets.load_dataset) as load:
        call_script("run_ner_crf", **options, tag_column="tags")
    assert load.call_count == 3
