"""SemEval-2013's schemes, group by group of overlapping entities, against the library over whole documents."""

import random
from dataclasses import asdict

import pytest
from nervaluate import Evaluator

from analysis.documents import ScoredDocument, count_entities, precision_recall_f1
from analysis.pairs import SchemeScore, scheme_scores
from common.entities import Entity
from tests.analysis.documents import scored
from tests.analysis.test_pairs import random_spans


def inclusive(entities: list[Entity]) -> list[dict[str, object]]:
    return [{"label": one.type, "start": one.first_word, "end": one.last_word} for one in entities]


@pytest.fixture
def documents() -> list[ScoredDocument]:
    generator = random.Random(0)
    documents = []
    for _ in range(300):
        gold = random_spans(generator)
        kept = [one for one in gold if generator.random() < 0.7]
        predicted = kept if generator.random() < 0.5 else random_spans(generator)
        documents.append(ScoredDocument("", [], gold, predicted))
    return documents


def test_counts_are_the_librarys(documents: list[ScoredDocument]) -> None:
    gold, predicted = [inclusive(one.gold) for one in documents], [inclusive(one.predicted) for one in documents]
    library = Evaluator(gold, predicted, tags=["X", "Y", "Z"], loader="dict").evaluate()["overall"]
    for name, score in scheme_scores(documents).items():
        expected = vars(library["ent_type" if name == "type" else name])
        assert asdict(score) == pytest.approx({key: expected[key] for key in asdict(score)})


def test_strict_is_the_headline_and_exact_forgets_types(documents: list[ScoredDocument]) -> None:
    untyped = [
        one._replace(
            gold=[e._replace(type="") for e in one.gold], predicted=[e._replace(type="") for e in one.predicted]
        )
        for one in documents
    ]
    scores = scheme_scores(documents)
    for name, counted in (("strict", documents), ("exact", untyped)):
        expected = precision_recall_f1(count_entities(counted).sum(0))
        assert (scores[name].precision, scores[name].recall, scores[name].f1) == pytest.approx(tuple(expected))


def test_the_example_of_the_definition() -> None:
    documents = [
        scored("DRUG 0 1", "DRUG 0 1"),  # right
        scored("DRUG 0 1", "BRAND 0 1"),  # other type
        scored("DRUG 0 1", "DRUG 0 0"),  # other borders
        scored("DRUG 0 1", "BRAND 1 2"),  # both
        scored("DRUG 0 1", ""),
        scored("", "DRUG 0 1"),
    ]
    found = {name: asdict(score) for name, score in scheme_scores(documents).items()}
    counts = {name: [score[key] for key in list(score)[:5]] for name, score in found.items()}
    assert counts == {
        "strict": [1, 3, 0, 1, 1],
        "exact": [2, 2, 0, 1, 1],
        "partial": [2, 0, 2, 1, 1],
        "type": [2, 2, 0, 1, 1],
    }
    assert {name: score["f1"] for name, score in found.items()} == pytest.approx(
        {"strict": 0.2, "exact": 0.4, "partial": 0.6, "type": 0.4}
    )


def test_without_entities_all_is_zero() -> None:
    assert (
        scheme_scores([])
        == scheme_scores([scored("", "")])
        == dict.fromkeys(("strict", "exact", "partial", "type"), SchemeScore())
    )
