"""Scores equal conlleval's counts and a count over sets of spans, on whatever tags Hypothesis comes up with."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.documents import ScoredDocument, count_entities, precision_recall_f1
from analysis.metrics import Score
from common.entities import Entity
from common.tag_schemes import MARKUPS, SCHEMES, tags_to_entities
from tests.analysis.conlleval import conlleval
from tests.analysis.test_metrics import WELL_FORMED, strict_spans
from tests.tags import convert_tags, scores_of_tags

TYPES = ["X", "Y", "X-Y"]
Sentences = list[tuple[list[str], list[str]]]  # gold and predicted tags
Spans = list[tuple[int, int, str]]
Annotations = list[tuple[int, Spans, Spans]]  # length, gold and predicted
# Begin, inside, end and single; conlleval knows no M, L, U.
LETTERS = {"IOB2": "BIIB", "IOE2": "IIEE", "BIOS": "BIIS", "BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU"}
every_scheme = pytest.mark.parametrize("scheme", sorted(SCHEMES))
KNOWN_TO_CONLLEVAL = [name for name in sorted(SCHEMES) if name not in ("BMES", "BILOU")]


def sentences_of(prefixes: str) -> st.SearchStrategy[Sentences]:
    """Any tags at all, mostly ill-formed, the predicted ones like the gold ones but here and there."""
    tags = st.sampled_from(["O", *(f"{prefix}-{name}" for prefix in prefixes for name in TYPES)])
    words = st.one_of(tags.map(lambda tag: (tag, tag)), st.tuples(tags, tags))
    sentence = st.lists(words, max_size=10).map(lambda pairs: ([one for one, _ in pairs], [two for _, two in pairs]))
    return st.lists(sentence, min_size=1, max_size=4)


@st.composite
def spans_of(draw: st.DrawFn, length: int) -> Spans:
    """Entities side by side, touching more often than not."""
    spans, position = [], 0
    while position < length:
        position += draw(st.sampled_from([0, 0, 1, 2]))
        end = position + draw(st.integers(1, 4))
        if end > length:
            break
        spans.append((position, end, draw(st.sampled_from(TYPES))))
        position = end
    return spans


@st.composite
def two_annotations(draw: st.DrawFn) -> tuple[int, Spans, Spans]:
    """Gold and predicted entities of a sentence, which share some."""
    length = draw(st.integers(0, 14))
    gold = draw(spans_of(length))
    return length, gold, gold if draw(st.booleans()) else draw(spans_of(length))


def written(spans: Spans, length: int, scheme: str) -> list[str]:
    """Tags of the spans, by the definition of each scheme."""
    tags = ["O"] * length
    for start, end, name in spans:
        if scheme == "IOB1":
            touches = any(other[1] == start and other[2] == name for other in spans)
            letters = ("B" if touches else "I") + "I" * (end - start - 1)
        elif scheme == "IOE1":
            touches = any(other[0] == end and other[2] == name for other in spans)
            letters = "I" * (end - start - 1) + ("E" if touches else "I")
        else:
            begin, inside, last, single = list(LETTERS[scheme])
            letters = single if end - start == 1 else begin + inside * (end - start - 2) + last
        tags[start:end] = [f"{letter}-{name}" for letter in letters]
    return tags


def numbers(score: Score | None) -> Any:
    assert score
    return pytest.approx((score.precision, score.recall, score.f1))


def span_scores(right: int, predicted: int, gold: int) -> tuple[float, float, float]:
    precision, recall = right / max(1, predicted), right / max(1, gold)
    return precision, recall, 2 * right / max(1, predicted + gold)


def columns(sentences: Sentences) -> tuple[list[list[str]], list[list[str]]]:
    return [gold for gold, _ in sentences], [predicted for _, predicted in sentences]


@pytest.mark.parametrize("scheme", [*KNOWN_TO_CONLLEVAL, "mixed"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_headline_is_conllevals_on_any_tags(scheme: str, data: st.DataObject) -> None:
    prefixes = "BIES" if scheme == "mixed" else "".join(SCHEMES[scheme].prefixes)
    gold, predicted = columns(data.draw(sentences_of(prefixes)))
    scores, counted = scores_of_tags(gold, predicted, "bioes"), conlleval(gold, predicted)
    assert counted.precision_recall_f1() == numbers(scores.micro)
    assert scores.micro.support == sum(counted.gold.values())
    for name, score in scores.types.items():
        assert counted.precision_recall_f1([name]) == numbers(score)


@pytest.mark.parametrize("scheme", [*KNOWN_TO_CONLLEVAL, "mixed"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_spans_that_are_analysed_are_those_of_the_headline(scheme: str, data: st.DataObject) -> None:
    prefixes = "BIES" if scheme == "mixed" else "".join(SCHEMES[scheme].prefixes)
    gold, predicted = columns(data.draw(sentences_of(prefixes)))
    documents = [
        ScoredDocument("", ["w"] * len(one), tags_to_entities(one), tags_to_entities(two))
        for one, two in zip(gold, predicted, strict=True)
    ]
    counted = conlleval(gold, predicted)
    counts = count_entities(documents).sum(0)
    assert counts.tolist() == [sum(counter.values()) for counter in counted]
    assert precision_recall_f1(counts).tolist() == pytest.approx(counted.precision_recall_f1())


@every_scheme
@settings(max_examples=100, deadline=None)
@given(annotations=st.lists(two_annotations(), min_size=1, max_size=4))
@example(annotations=[(4, [(0, 2, "X"), (2, 4, "X")], [(0, 4, "X")])])  # IOB1 marks a border only here
def test_well_formed_tags_score_as_their_sets_of_spans(scheme: str, annotations: Annotations) -> None:
    right = sum(len(set(gold) & set(predicted)) for _, gold, predicted in annotations)
    gold_count = sum(len(gold) for _, gold, _ in annotations)
    expected = span_scores(right, sum(len(predicted) for *_, predicted in annotations), gold_count)
    for markup, inner in MARKUPS.items():
        gold = [convert_tags(written(spans, length, scheme), inner) for length, spans, _ in annotations]
        predicted = [convert_tags(written(spans, length, scheme), inner) for length, _, spans in annotations]
        scores = scores_of_tags(gold, predicted, markup)
        assert expected == numbers(scores.micro)
        assert expected == numbers(scores.strict)
        assert scores.micro.support == gold_count


@every_scheme
@settings(max_examples=100, deadline=None)
@given(annotation=two_annotations())
def test_tags_are_read_as_the_spans_that_were_written(scheme: str, annotation: tuple[int, Spans, Spans]) -> None:
    length, spans, _ = annotation
    expected = [Entity(name, start, end - 1) for start, end, name in spans]
    assert tags_to_entities(written(spans, length, scheme)) == expected


@pytest.mark.parametrize("markup", list(WELL_FORMED))
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_strict_scores_count_whole_entities_only(markup: str, data: st.DataObject) -> None:
    gold, predicted = columns(data.draw(sentences_of("".join(MARKUPS[markup].prefixes))))
    gold_spans, predicted_spans = strict_spans(gold, markup), strict_spans(predicted, markup)
    scores = scores_of_tags(gold, predicted, markup)
    expected = span_scores(len(gold_spans & predicted_spans), len(predicted_spans), len(gold_spans))
    assert expected == numbers(scores.strict)


def flat(sentences: Sequence[str]) -> list[list[str]]:
    return [sentence.split() for sentence in sentences]


@pytest.mark.parametrize(
    ("gold", "predicted", "counts"),
    [
        ("B-X I-X O", "B-X I-Y O", (0, 2, 1)),  # a change of type is a border
        ("I-X I-X", "B-X I-X", (1, 1, 1)),
        ("B-X B-X", "B-X I-X", (0, 1, 2)),
        ("I-X B-X", "I-X I-X", (0, 1, 2)),
        ("I-X E-X I-X", "I-X E-X E-X", (2, 2, 2)),
        ("S-X I-X", "S-X S-X", (2, 2, 2)),
        ("E-X E-X", "I-X E-X", (0, 1, 2)),
        ("O B-X-Y", "O B-X", (0, 1, 1)),
    ],
)
def test_known_cases(gold: str, predicted: str, counts: tuple[int, int, int]) -> None:
    counted = conlleval(flat([gold]), flat([predicted]))
    assert tuple(sum(counter.values()) for counter in counted) == counts
    scores = scores_of_tags(flat([gold]), flat([predicted]), "bioes")
    assert span_scores(*counts) == numbers(scores.micro)
