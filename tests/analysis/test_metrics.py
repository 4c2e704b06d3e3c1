"""Scores against an independent count over sets of spans."""

import io
import random
import re

import pytest
from rich.console import Console

from analysis.analysis import score_table
from analysis.metrics import EntityScores, Score
from common.tag_schemes import MARKUPS, TagScheme, tag_set
from tests.tags import scores_of_tags

TYPES = ["PER", "LOC", "GEO-POL"]
Span = tuple[int, int, int, str]  # sentence, start, end, type
WELL_FORMED = {"bio": "BI*", "bios": "S|BI+", "bioes": "S|BI*E", "bmes": "S|BM*E", "bilou": "U|BI*L"}
markups = pytest.mark.parametrize("markup", list(WELL_FORMED))


def lenient_spans(sentences: list[list[str]]) -> set[Span]:
    """The chunks that conlleval.pl sees, by its own tables of chunk starts and ends."""
    ends = {("B", "B"), ("B", "O"), ("B", "S"), ("I", "B"), ("I", "O"), ("I", "S"), ("E", "*"), ("S", "*")}
    starts = {("*", "B"), ("*", "S"), ("O", "I"), ("O", "E"), ("E", "I"), ("E", "E"), ("S", "I"), ("S", "E")}
    spans: set[Span] = set()
    for number, tags in enumerate(sentences):
        start, previous, previous_type = 0, "O", ""
        for position, tag in enumerate([*tags, "O"]):
            prefix, _, entity_type = tag.partition("-")
            prefix = prefix.translate(str.maketrans("MLU", "IES"))
            changes = entity_type != previous_type
            pairs = {(previous, prefix), ("*", prefix), (previous, "*")}
            if previous != "O" and (pairs & ends or changes):
                spans.add((number, start, position, previous_type))
            if prefix != "O" and (pairs & starts or changes):
                start = position
            previous, previous_type = prefix, entity_type
    return spans


def strict_spans(sentences: list[list[str]], markup: str) -> set[Span]:
    """The spans whose tags are one well-formed entity and do not go on."""
    spans: set[Span] = set()
    for number, tags in enumerate(sentences):
        position = 0
        while position < len(tags):
            entity_type = tags[position].partition("-")[2]
            run = ""
            for tag in tags[position:]:
                if tag == "O" or tag.partition("-")[2] != entity_type:
                    break
                run += tag[0]
            match = re.match(WELL_FORMED[markup], run)
            if match and match.end():
                spans.add((number, position, position + match.end(), entity_type))
            position += max(1, match.end() if match else 1)
    return spans


def score_of(gold: set[Span], predicted: set[Span]) -> Score:
    correct = len(gold & predicted)
    precision = correct / len(predicted) if predicted else 0.0
    recall = correct / len(gold) if gold else 0.0
    return Score(precision, recall, 2 * precision * recall / (precision + recall) if correct else 0.0, len(gold))


def approximately(score: Score | None) -> object:
    assert score
    return pytest.approx(vars(score))


def random_tags(generator: random.Random, markup: str, legal: bool) -> list[list[str]]:
    tags, scheme = tag_set(TYPES, MARKUPS[markup]), MARKUPS[markup]
    length = generator.randrange(0, 12)
    if not legal:
        return [generator.choices(tags, k=length) for _ in range(5)]
    return [legal_tags(generator, tags, scheme, length) for _ in range(5)]


def legal_tags(generator: random.Random, tags: list[str], scheme: TagScheme, length: int) -> list[str]:
    while True:
        found = ["O"]
        while len(found) <= length:
            found.append(generator.choice([tag for tag in tags if scheme.allows(found[-1], tag)]))
        if scheme.allows(found[-1], "O"):
            return found[1:]


@markups
@pytest.mark.parametrize("legal", [True, False])
def test_scores_equal_a_count_over_sets_of_spans(markup: str, legal: bool) -> None:
    generator = random.Random(f"{markup} {legal}")
    for _ in range(60):
        gold = random_tags(generator, markup, legal)
        predicted = [
            [tag if generator.random() < 0.6 else other for tag, other in zip(tags, others, strict=True)]
            for tags, others in zip(gold, map(list, map(reversed, gold)), strict=True)
        ]
        scores = scores_of_tags(gold, predicted, markup)
        gold_spans, predicted_spans = lenient_spans(gold), lenient_spans(predicted)
        assert vars(scores.micro) == approximately(score_of(gold_spans, predicted_spans))
        strict = score_of(strict_spans(gold, markup), strict_spans(predicted, markup))
        assert vars(scores.strict) == approximately(strict)
        assert scores.types.keys() == {span[3] for span in gold_spans | predicted_spans}
        for name, score in scores.types.items():
            of_type = [{span for span in spans if span[3] == name} for spans in (gold_spans, predicted_spans)]
            assert vars(score) == approximately(score_of(*of_type))


@markups
def test_a_long_document_scores_as_its_sentences(markup: str) -> None:
    generator = random.Random(markup)
    gold, predicted = [], []
    for _ in range(200):
        for tags, others in zip(*(random_tags(generator, markup, legal=True) for _ in range(2)), strict=True):
            length = min(len(tags), len(others))
            gold.append([*tags[:length], "O"])
            predicted.append([*others[:length], "O"])
    joined = [[tag for tags in side for tag in tags] for side in (gold, predicted)]
    assert len(joined[0]) > 2000
    assert scores_of_tags([joined[0]], [joined[1]], markup) == scores_of_tags(gold, predicted, markup)


@markups
def test_strict_and_lenient_scores_agree_on_legal_tags(markup: str) -> None:
    generator = random.Random(markup)
    for _ in range(60):
        gold = random_tags(generator, markup, legal=True)
        predicted = [
            legal_tags(generator, tag_set(TYPES, MARKUPS[markup]), MARKUPS[markup], len(tags)) for tags in gold
        ]
        scores = scores_of_tags(gold, predicted, markup)
        assert vars(scores.strict) == approximately(scores.micro)


@pytest.mark.parametrize(
    ("markup", "tags"),
    [
        ("bios", ["B-PER", "O"]),  # a lone B is not a whole entity
        ("bios", ["O", "B-PER"]),
        ("bios", ["B-PER", "I-LOC", "O"]),
        ("bios", ["I-PER", "O"]),
        ("bio", ["O", "I-PER"]),
        ("bio", ["I-PER", "I-PER"]),
        ("bioes", ["B-PER", "O"]),
        ("bioes", ["B-PER", "I-PER"]),
        ("bioes", ["O", "E-PER"]),
        ("bmes", ["O", "M-PER", "E-PER"]),
        ("bilou", ["O", "I-PER", "O"]),
    ],
)
def test_an_ill_formed_entity_counts_leniently_only(markup: str, tags: list[str]) -> None:
    scores = scores_of_tags([tags], [tags], markup)
    assert scores.micro.f1 == 1.0
    assert scores.micro.support >= 1
    assert scores.strict == Score()


@pytest.mark.parametrize(
    ("markup", "tags", "entities"),
    [
        ("bio", ["B-PER", "B-PER", "I-PER", "O", "B-LOC"], 3),
        ("bios", ["S-PER", "B-PER", "I-PER", "S-LOC", "S-LOC"], 4),
        ("bios", ["B-PER", "I-PER", "B-PER", "I-PER"], 2),
        ("bios", ["B-PER", "I-PER", "B-LOC", "I-LOC"], 2),
        ("bioes", ["S-PER", "B-PER", "E-PER", "B-LOC", "I-LOC", "E-LOC"], 3),
        ("bmes", ["S-PER", "B-PER", "E-PER", "B-LOC", "M-LOC", "E-LOC"], 3),
        ("bilou", ["U-PER", "B-PER", "L-PER", "B-LOC", "I-LOC", "L-LOC"], 3),
    ],
)
def test_well_formed_entities_count_strictly(markup: str, tags: list[str], entities: int) -> None:
    scores = scores_of_tags([tags], [tags], markup)
    assert scores.strict == scores.micro == Score(1.0, 1.0, 1.0, entities)


def test_single_words_count_in_bios() -> None:
    scores = scores_of_tags([["S-PER", "O", "S-LOC"]], [["S-PER", "O", "O"]], "bios")
    assert scores.micro == scores.strict
    assert vars(scores.micro) == approximately(Score(1.0, 0.5, 2 / 3, 2))


def test_an_entity_does_not_reach_into_the_next_sentence() -> None:
    gold = [["O", "B-PER"], ["B-PER", "O"]]
    assert scores_of_tags(gold, [["O", "B-PER"], ["I-PER", "O"]], "bio").micro.f1 == 1.0
    assert scores_of_tags([["O", "B-PER"], ["O"]], [["O", "B-PER"], ["I-PER"]], "bio").micro.precision == 0.5


@pytest.mark.parametrize("sentences", [[], [[]], [["O", "O"], []]])
def test_without_any_entity_all_scores_of_entities_are_zero(sentences: list[list[str]]) -> None:
    words = any(sentences)
    assert scores_of_tags(sentences, sentences, "bios") == EntityScores(strict=Score(), accuracy=float(words))


def test_everything_predicted_outside_scores_zero_but_counts_the_gold() -> None:
    scores = scores_of_tags([["S-PER", "O"]], [["O", "O"]], "bios")
    assert scores.micro == scores.strict == scores.types["PER"] == Score(0.0, 0.0, 0.0, 1)


def test_a_type_that_is_only_predicted_has_no_support() -> None:
    scores = scores_of_tags([["S-PER", "O"]], [["S-PER", "S-LOC"]], "bios")
    assert scores.types["LOC"] == Score(0.0, 0.0, 0.0, 0)
    assert vars(scores.micro) == approximately(Score(0.5, 1.0, 2 / 3, 1))


def test_types_with_hyphens_stay_whole() -> None:
    assert set(scores_of_tags([["S-GEO-POL"]], [["S-GEO-POL"]], "bios").types) == {"GEO-POL"}


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        scores_of_tags([["S-PER", "O"]], [["S-PER"]], "bios")


def test_headline_numbers_lie_flat() -> None:
    flat = scores_of_tags([["S-PER", "S-LOC"]], [["S-PER", "O"]], "bios").as_dict()
    assert (flat["precision"], flat["recall"], flat["support"]) == (1.0, 0.5, 2)
    assert (flat["strict_precision"], flat["strict_recall"]) == (1.0, 0.5)
    assert flat["f1"] == flat["strict_f1"] == pytest.approx(2 / 3)
    assert flat["types"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}


def test_the_table_shows_types_micro_and_strict_in_percent() -> None:
    scores = scores_of_tags([["S-PER", "S-LOC"]], [["S-PER", "O"]], "bios")
    shown = io.StringIO()
    Console(width=100, file=shown).print(score_table(scores, "dev"))
    rows = [re.findall(r"[\w.]+", line) for line in shown.getvalue().splitlines()]
    assert ["dev"] in rows
    assert ["PER", "100.00", "100.00", "100.00", "1"] in rows
    assert ["LOC", "0.00", "0.00", "0.00", "1"] in rows
    assert ["micro", "100.00", "50.00", "66.67", "2"] in rows
    assert ["strict", "by", "scheme", "100.00", "50.00", "66.67", "2"] in rows


@pytest.mark.parametrize(("entity_type", "tags"), [("", ["B", "I", "O"]), ("_", ["B-_", "I-_", "O"])])
def test_a_type_has_the_name_that_the_tags_give_it_if_any(entity_type: str, tags: list[str]) -> None:
    types = scores_of_tags([tags], [tags], "bio").types
    assert types == {entity_type: Score(1.0, 1.0, 1.0, 1)}
