"""All further scores together, and their tables."""

import io
import json
import re
import time

from rich.console import Console

from analysis.analysis import analyse, analysis_tables
from tests.analysis.documents import scored

DOCUMENTS = [
    scored("PER 0 1, LOC 3 4", "ORG 0 1, LOC 3 3", words="dan lee in new york"),
    scored("PER 0 0", "PER 0 0, ORG 2 2", words="anna left acme"),
]


def test_the_analysis_goes_through_json_unchanged() -> None:
    found = analyse(DOCUMENTS, {"anna"}).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["errors"] == {
        "right": 1, "type": 1, "boundary": 1, "type and boundary": 0, "missed": 0, "spurious": 1
    }  # fmt: skip
    assert found["novelty"]["seen in train"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert found["schemes"]["partial"]["correct"] == 2
    assert set(found["intervals"]) == {"precision", "recall", "f1"}


def test_without_train_nothing_is_said_of_novelty() -> None:
    assert analyse(DOCUMENTS, None).as_dict()["novelty"] is None


def test_the_tables_fit_a_file_of_100_columns() -> None:
    shown = io.StringIO()
    Console(width=100, file=shown).print(analysis_tables(analyse(DOCUMENTS, {"anna"})))
    lines = [re.findall(r"[\w.-]+", line) for line in shown.getvalue().splitlines()]
    assert ["exact", "50.00", "66.67", "57.14", "unseen", "0.00", "0.00", "0.00", "2"] in lines
    assert ["right", "1", "PER", "ORG", "1"] in lines  # kinds of error, confusions
    assert ["type", "1", "-", "ORG", "1"] in lines
    assert "…" not in shown.getvalue()


def test_ten_thousand_documents_take_a_second_or_two() -> None:
    start = time.process_time()
    analyse(DOCUMENTS * 5000, {"anna"})
    assert time.process_time() - start < 3
