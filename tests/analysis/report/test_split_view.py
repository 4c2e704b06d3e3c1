"""What the report shows of a split: tables, and the rows of its sentences."""

from analysis.pairs import KINDS
from analysis.report.run_data import Split
from analysis.report.split_view import sentence_rows, split_view
from common.entities import Entity
from tests.analysis.report.scored import LOC, PER, document, results_of

TYPES = [LOC, PER]


def test_entities_without_a_type_have_their_interval() -> None:
    right, missed = [Entity("", 0, 0)], [Entity("", 1, 1)]
    documents = [document(str(number), "Anna Lee", right, right if number % 3 else missed) for number in range(30)]
    view = split_view(Split("dev", results_of(documents), documents, None))
    low, high = view.intervals[""]
    assert 0 < low < view.results["types"][""]["f1"] < high < 1


def test_a_single_document_has_scores_without_intervals() -> None:
    documents = [document("0", "Anna Lee", [Entity("PER", 0, 0)], [Entity("PER", 0, 0)])]
    view = split_view(Split("dev", results_of(documents), documents, None))
    assert [view.results[name] for name in ("f1", "precision", "recall")] == [1.0, 1.0, 1.0]
    assert view.results["intervals"] == view.intervals == {}


def sliced(text: str, start: int, end: int) -> str:
    """As JavaScript's ``text.slice(start, end)``."""
    return text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")


def test_a_right_entity_stands_on_both_sides_with_its_confidence() -> None:
    entity = Entity(PER, 1, 2)
    (row,) = sentence_rows([document("dev-1", "for Anna Lee now", [entity], [entity], 0.98765)], TYPES)
    assert row == ["dev-1", "for Anna Lee now", [[KINDS.index("right"), [1, 4, 12], [1, 4, 12], 0.988]]]


def test_errors_are_in_the_order_of_the_text() -> None:
    gold, predicted = [Entity(PER, 2, 2)], [Entity(LOC, 0, 0)]
    ((_, _, pairs),) = sentence_rows([document("a", "xx yy zz", gold, predicted)], TYPES)
    assert pairs == [[KINDS.index("spurious"), 0, [0, 0, 2], 0.75], [KINDS.index("missed"), [1, 6, 8], 0]]


def test_characters_beyond_the_basic_plane_count_twice() -> None:
    words = ["🎈", "彭", "𠮷", "军", "👩‍🚀"]
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            source = document("a", "", [Entity(PER, start, end - 1)], [])._replace(words=words)
            ((_, text, ((_, place, _),)),) = sentence_rows([source], TYPES)
            joined = sliced(text, place[1], place[2])
            assert joined.replace(" ", "") == "".join(words[start:end])


def test_chinese_is_set_without_spaces() -> None:
    source = document("a", "", [Entity(LOC, 1, 2)], [])._replace(words=list("在北京。"))
    ((_, text, ((_, place, _),)),) = sentence_rows([source], TYPES)
    assert (text, place) == ("在北京。", [0, 1, 3])


def test_documents_without_confidences_have_none() -> None:
    entity = Entity(PER, 0, 0)
    ((_, _, pairs),) = sentence_rows([document("a", "x", [], [entity])._replace(confidences=())], TYPES)
    assert pairs == [[KINDS.index("spurious"), 0, [1, 0, 1]]]
