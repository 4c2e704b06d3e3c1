"""Training on texts that lack entities: the expected entity ratio, and what is learnt with it."""

import itertools
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import TrainState
from common.entities import Annotation, Entity
from common.run_files import RunFolder
from models import BertCrfForNer, BertCrfPerTypeForNer, BertSoftmaxForNer
from models.tagger import LabelSpace
from processors.corpus import Corpus
from processors.formats.writers import FORMATS
from tests.helpers import write_corpus
from tests.models.families import tiny_config
from tests.tools.runs import call_script, options_of_run, read_json
from tools.missing_entities import MissingEntities

W, TYPES = 3, ["A", "B"]
LENGTHS = (3, 0, 1, 2)


def tagger(head: Any) -> Any:
    config = tiny_config("bert")
    head.configure(config, LabelSpace(TYPES, "bio"), head.Options())
    torch.manual_seed(1)
    model = head(config)
    for name, weight in model.named_parameters():
        if name.startswith("crf."):
            weight.data.uniform_(-1, 1)
    return model


def expected_words(model: Any, emissions: Tensor) -> Tensor:
    """The expected number of words that are not ``O`` of one chain ``(W, C)``, by enumeration."""
    names, scores, counts = model.tag_names, [], []
    for path in itertools.product(range(len(names)), repeat=len(emissions)):
        score = emissions[range(len(path)), path].sum()
        if path and hasattr(model, "crf"):
            if not all(model.crf.legal[pair] for pair in itertools.pairwise((len(names), *path))):
                continue
            score = score + model.crf.start_transitions[path[0]] + model.crf.end_transitions[path[-1]]
            score = score + model.crf.transitions[list(path[:-1]), list(path[1:])].sum()
        scores.append(score)
        counts.append(sum(names[tag] != "O" for tag in path))
    return torch.stack(scores).softmax(0) @ torch.tensor(counts, dtype=torch.float32)


@pytest.mark.parametrize("head", [BertSoftmaxForNer, BertCrfForNer, BertCrfPerTypeForNer])
def test_expected_words_and_their_gradients_equal_enumeration(head: Any) -> None:
    model, generator = tagger(head), torch.Generator().manual_seed(2)
    C = model.num_scores(model.config)
    emissions = torch.randn(len(LENGTHS), W, C, generator=generator).requires_grad_()
    mask = torch.arange(W) < torch.tensor(LENGTHS)[:, None]
    chains = [[row[:length]] for row, length in zip(emissions, LENGTHS, strict=True)]
    if head is BertCrfPerTypeForNer:
        chains = [list(row.unflatten(-1, (len(TYPES), -1)).unbind(1)) for [row] in chains]
    expected = torch.stack([torch.stack([expected_words(model, one) for one in row]).sum() for row in chains])
    found = model.expected_entity_words(emissions, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs, weights = [emissions, *getattr(model, "crf", torch.nn.Identity()).parameters()], torch.arange(1.0, 5)
    of_found, of_expected = (torch.autograd.grad((value * weights).sum(), inputs) for value in (found, expected))
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("head", [BertSoftmaxForNer, BertCrfForNer])
def test_each_word_of_an_entity_that_is_not_annotated_was_overlooked(head: Any) -> None:
    """The loss is that of the annotation, given the tags: it has the entity, and each further word was overlooked."""
    model, overlooked = tagger(head), 0.3
    annotation = Annotation(W, [Entity("A", 0, 0)], complete=frozenset({"A"}))
    emissions = torch.randn(1, W, len(model.tag_names), generator=torch.Generator().manual_seed(3))
    seen = everything = 0.0
    for path in itertools.product(range(len(model.tag_names)), repeat=W):
        tags = [model.tag_names[tag] for tag in path]
        score = emissions[0, range(W), path].sum()
        if head is BertCrfForNer:
            if not all(model.crf.legal[pair] for pair in itertools.pairwise((len(model.tag_names), *path))):
                continue
            score = score + model.crf.start_transitions[path[0]] + model.crf.end_transitions[path[-1]]
            score = score + model.crf.transitions[list(path[:-1]), list(path[1:])].sum()
        everything += score.exp().item()
        if tags[0] == "B-A" and all(tag in ("O", "B-B", "I-B") for tag in tags[1:]):
            seen += score.exp().item() * overlooked ** sum(tag != "O" for tag in tags[1:])
    model.log_missed, mask = math.log(overlooked), torch.ones(1, W, dtype=torch.bool)
    targets = model.encode([annotation])
    assert model.train().losses(emissions, targets, mask).item() == pytest.approx(math.log(everything / seen), abs=1e-5)
    without = model.eval().losses(emissions, targets, mask).item()
    model.log_missed = 0.0
    assert model.train().losses(emissions, targets, mask).item() == pytest.approx(without, abs=1e-6)


def penalty(callback: MissingEntities, logits: Tensor) -> float:
    """What the callback adds to the loss of a batch whose words have these scores for two tags, O and another."""
    model = BertSoftmaxForNer(tiny_config("bert"))
    model.config.id2label = {0: "O", 1: "B-A"}
    mask = torch.ones(logits.shape[:2], dtype=torch.bool)
    state = TrainState(model, torch.optim.SGD(model.parameters()), 10, 10)
    output = SimpleNamespace(loss=torch.zeros(()), logits=logits)
    batch = {"word_mask": mask, "num_items_in_batch": int(mask.sum())}
    value = callback.around_forward(state, lambda batch: output, batch).loss.item()
    callback.on_step(state)
    return float(value)


def scores_of(share: float, words: int = 100) -> Tensor:
    """Scores ``(1, words, 2)`` with which a share of the words is expected in entities."""
    odds = torch.tensor([1 - share, share]).log()
    return odds.expand(1, words, 2)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2 * 0.38), (0.12, 0.0), (0.08, 0.0), (0.02, 2 * 0.06)])
def test_the_penalty_is_the_distance_from_the_interval(share: float, expected: float) -> None:
    callback = MissingEntities(0.1, 0.5, 0.2, 2.0)
    assert penalty(callback, scores_of(share)) == 0  # nothing is known of the mean yet
    assert penalty(callback, scores_of(share)) == pytest.approx(expected, abs=1e-5)


def test_one_unusual_batch_among_many_is_not_penalised() -> None:
    callback = MissingEntities(0.1, 0.5, 0.2, 1.0)
    assert penalty(callback, scores_of(0.1, words=5000)) == 0
    assert penalty(callback, scores_of(0.4)) == 0
    for _ in range(20):
        last = penalty(callback, scores_of(0.4, words=1000))
    assert last == pytest.approx(0.4 - 0.12, abs=1e-5)
    other = MissingEntities(0.1, 0.5, 0.2, 1.0)
    other.load_state_dict(callback.state_dict())
    assert penalty(other, scores_of(0.1)) == pytest.approx(0.1 - 0.12, abs=1e-5)


@pytest.fixture
def options(encoder: Path, tmp_path: Path) -> dict[str, Any]:
    """Flags of a training on texts that lack two thirds of their entities."""
    corpus = Corpus("tiny", write_corpus(tmp_path / "whole", {"train": 150, "dev": 20, "test": 20}))
    home, generator = tmp_path / "missing", random.Random(0)
    home.mkdir()
    examples = {split: list(corpus.examples(split)) for split in ("train", "dev", "test")}
    for example in examples["train"]:
        example.entities = [one for one in example.entities or () if generator.random() < 1 / 3]
    for split, texts in examples.items():
        FORMATS["jsonl"].write(texts, home / f"{split}.jsonl")
    changes = {
        "do_train": True,
        "do_eval": True,
        "from_scratch": True,
        "num_train_epochs": 6,
        "per_gpu_train_batch_size": 8,
    }
    return {**options_of_run(encoder, home, tmp_path), **changes}


def scored(script: str, options: dict[str, Any]) -> tuple[float, str]:
    """Train and return the F1 of dev and the log."""
    call_script(script, **options, overwrite_output_dir=True)
    run = RunFolder(Path(options["output_dir"]))
    return read_json(run.results("dev"))["f1"], run.log.read_text("utf-8")


@pytest.mark.parametrize("script", ["run_ner_softmax", "run_pl_ner"])
def test_entities_are_found_that_are_missing_in_the_training_texts(script: str, options: dict[str, Any]) -> None:
    f1, log = scored(script, {**options, "missing_entities": True})
    assert re.search("The model expects .* % of the words of training texts in entities, wanted: within", log)
    assert f1 > scored("run_ner_softmax", options)[0] + 0.3


@pytest.mark.parametrize("with_dev", [True, False])
def test_a_model_that_finds_entities_everywhere_is_warned_of(options: dict[str, Any], with_dev: bool) -> None:
    changes = {"missing_entities": True, "entity_ratio": 0.05, "entity_ratio_weight": 0.0, "num_train_epochs": 2}
    changes |= {"annotated_share": 1e-6, "evaluate_during_training": with_dev}
    _, log = scored("run_ner_crf", {**options, **changes})
    assert re.search("not within 4.5 to 5.5 %: it drifts towards entities everywhere", log)


def test_the_types_that_a_text_calls_complete_stay_so(options: dict[str, Any], tmp_path: Path) -> None:
    train = tmp_path / "missing" / "train.jsonl"
    changed = [line.rstrip()[:-1] + ', "complete": ["PER", "LOC", "ORG"]}' for line in train.read_text().splitlines()]
    train.write_text("\n".join(changed) + "\n")
    results = []
    for missing in ({"missing_entities": True, "entity_ratio_weight": 0.0}, {}):
        changes = {**options, **missing, "max_steps": 4, "do_eval": False, "overwrite_output_dir": True}
        call_script("run_ner_crf", **changes)
        results.append(read_json(Path(options["output_dir"]) / "train_results.json")["loss"])
    assert results[0] == results[1]


def test_the_annotated_share_is_estimated_from_dev(options: dict[str, Any]) -> None:
    _, log = scored("run_ner_crf", {**options, "missing_entities": True, "max_steps": 1})
    found = re.search(r"share of these that is annotated: (\d+) %", log)
    assert found is not None
    assert int(found[1]) == pytest.approx(33, abs=10)
    _, log = scored("run_ner_crf", {**options, "missing_entities": True, "max_steps": 1, "annotated_share": 0.6})
    assert "share of these that is annotated: 60 %" in log


@pytest.mark.parametrize(
    ("script", "changes", "message"),
    [
        ("run_ner_span", {}, "--missing_entities: BertSpanForNer chooses no tags"),
        ("run_ner_crf", {"class_weights": "O=2"}, "--class_weights: the CRF weights the words of known tags"),
        ("run_ner_softmax", {"loss": "lsr"}, "--loss lsr: "),
        ("run_ner_crf", {"dev_file": "{home}/none.jsonl"}, "no entities in dev .* give --entity_ratio"),
    ],
)
def test_what_cannot_work_is_refused(
    options: dict[str, Any], tmp_path: Path, script: str, changes: dict[str, str], message: str
) -> None:
    (tmp_path / "none.jsonl").write_text('{"tokens": ["he"], "tags": ["O"]}\n')
    changes = {name: value.format(home=tmp_path) for name, value in changes.items()}
    with pytest.raises(SystemExit, match=message):
        call_script(script, **options, **changes, missing_entities=True)
