"""What the page says of a split."""

from analysis.report.run_data import Split
from analysis.report.split_view import split_view
from common.entities import Entity
from tests.analysis.report.scored import document, results_of


def test_entities_without_a_type_have_their_interval() -> None:
    right, missed = [Entity("", 0, 0)], [Entity("", 1, 1)]
    documents = [document(str(number), "Anna Lee", right, right if number % 3 else missed) for number in range(30)]
    (row,) = split_view(Split("dev", results_of(documents), documents)).types
    assert row.interval is not None
    low, high = row.interval
    assert 0 < low < row.f1 < high < 1


def test_a_single_document_has_scores_without_intervals() -> None:
    documents = [document("0", "Anna Lee", [Entity("PER", 0, 0)], [Entity("PER", 0, 0)])]
    view = split_view(Split("dev", results_of(documents), documents))
    assert view.headline == [("F1", 1.0, None), ("precision", 1.0, None), ("recall", 1.0, None)]
    assert view.types[0].interval is None
