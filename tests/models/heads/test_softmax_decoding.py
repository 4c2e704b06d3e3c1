"""The search of the softmax head: against all tag sequences, one by one."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from common.entities import Entity
from common.tag_schemes import MARKUPS, begins_entity, tag_pairs, tag_set, tags_to_entities
from common.transition_biases import KINDS, biases_file, read_biases
from models import BertSoftmaxForNer
from models.heads.transitions import kinds_of_transitions
from models.tagger import set_label_names
from tests.models.families import tiny_config

BIASES = dict(zip(KINDS, (0.3, -0.8, 0.6, 1.1, -0.5, 0.9), strict=True))
SCHEMES = {
    "bio": tag_set(["A", "B"], MARKUPS["bio"]),
    "bioes": tag_set(["A"], MARKUPS["bioes"]),
    "io": ["O", "I-A", "I-B"],  # read as IOB1 without B
}


def tagger(tags: list[str], **changes: object) -> BertSoftmaxForNer:
    config = tiny_config("bert", tag_decoding="viterbi", **changes)
    set_label_names(config, tags)
    return BertSoftmaxForNer(config).eval()


def kind_of(before: str, after: str) -> str:
    """By the words of the documentation."""
    if "O" in (before, after):
        stays, starts = ("background_stay", "background_to_start")
        return (stays if after == "O" else starts) if before == "O" else "end_to_background"
    if begins_entity(before, after):
        return "end_to_start"
    return "inside_to_end" if after[0] == "E" else "inside_to_continue"


@pytest.mark.parametrize("biases", [{}, BIASES], ids=["no biases", "biases"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_and_confidences_are_those_of_all_legal_sequences(scheme: str, biases: dict[str, float]) -> None:
    tags, words = SCHEMES[scheme], 4
    model = tagger(tags, transition_biases=biases)
    markup = MARKUPS["iob1" if scheme == "io" else scheme]
    torch.manual_seed(1)
    emissions = torch.randn(12, words, len(tags))
    found = model.predict(emissions, torch.ones(12, words, dtype=torch.bool), with_confidence=True)
    for row, prediction in zip(emissions.tolist(), found, strict=True):
        scores = {}
        for path in itertools.product(tags, repeat=words):
            if all(markup.allows(*pair) for pair in tag_pairs(path)):
                moves = sum(biases.get(kind_of(*pair), 0.0) for pair in itertools.pairwise(path))
                scores[path] = moves + sum(row[word][tags.index(tag)] for word, tag in enumerate(path))
        assert tuple(prediction.tags or ()) == max(scores, key=scores.__getitem__)
        total = sum(map(math.exp, scores.values()))
        for entity, confidence in zip(prediction.entities, prediction.confidences, strict=True):
            share = sum(math.exp(score) for path, score in scores.items() if entity in tags_to_entities(path)) / total
            assert confidence == pytest.approx(share, abs=1e-5)


def test_without_marked_boundaries_the_best_tag_of_each_word_is_found() -> None:
    emissions = torch.randn(20, 9, 3)
    best = tagger(SCHEMES["io"]).decode(emissions, torch.ones(20, 9, dtype=torch.bool))
    assert best.tolist() == emissions.argmax(-1).tolist()


def test_the_search_adds_no_weights_and_draws_no_numbers() -> None:
    model = tagger(SCHEMES["bio"], transition_biases={"background_stay": 0.123})
    before, state = torch.get_rng_state(), set(model.state_dict())
    model.decode(torch.zeros(1, 2, 5), torch.ones(1, 2, dtype=torch.bool))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(model.state_dict()) == state == set(BertSoftmaxForNer(tiny_config("bert")).state_dict())


def test_tags_with_which_a_text_may_have_no_legal_sequence_are_refused() -> None:
    with pytest.raises(ValueError, match="no tag of B-A, E-A can be that of every word: bioes has no legal"):
        tagger(["B-A", "E-A"]).decode(torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))


def test_every_kind_of_transition_has_its_bias() -> None:
    tags = SCHEMES["bioes"]
    kinds = kinds_of_transitions(tuple(tags)).tolist()
    for before, after in itertools.product(tags, tags):
        assert KINDS[kinds[tags.index(before)][tags.index(after)]] == kind_of(before, after)
    assert {kind for row in kinds for kind in row} == set(range(len(KINDS)))


def test_biases_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "biases.json"
    path.write_text(json.dumps(biases_file(BIASES)), "utf-8")
    assert read_biases(path) == BIASES
    written = json.loads(path.read_text("utf-8"))
    assert written["operating_points"]["default"]["biases"]["transition_bias_background_to_start"] == -0.8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"operating_points": {}}', "has no entry 'default'"),
        ('{"operating_points": {"default": {"biases": {"stay": 1}}}}', "must have exactly the six biases"),
        (json.dumps(biases_file(BIASES)).replace("1.1", "true"), "inside_to_end must be numbers"),
        (json.dumps(biases_file(BIASES)).replace("1.1", "NaN"), "inside_to_end must be numbers"),
    ],
)
def test_other_files_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "biases.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"--transition_biases .*biases.json: .*{reason}"):
        read_biases(tmp_path / "biases.json")


def test_a_confidence_reads_the_distribution_that_decodes() -> None:
    """An entity that the tags of single words would break is whole, and its confidence says so."""
    model = tagger(SCHEMES["bio"])
    emissions = torch.full((1, 2, 5), -9.0)
    emissions[0, 0, 0], emissions[0, 0, 1], emissions[0, 1, 2] = 1.0, 0.9, 9.0  # O, B-A, then I-A
    (prediction,) = model.predict(emissions, torch.ones(1, 2, dtype=torch.bool), with_confidence=True)
    assert prediction.entities == [Entity("A", 0, 1)]
    assert prediction.confidences[0] > 0.99
