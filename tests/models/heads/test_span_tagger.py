"""The span head: its pairs of starts and ends, their probability, and compatibility with BERT-NER-Pytorch."""

import itertools
import json
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

import run_ner_span
from common.entities import Annotation, Entity
from inference.predictor import NerPredictor
from models import BertSpanForNer
from models.tagger import LabelSpace
from processors.tasks import NUMBERED_TYPES
from tests.models.families import batch_of, random_rows, tiny_config
from tests.tools.runs import edit_json, read_json
from tools.script import run_script

TEXTS = ["anna met bob", "the man saw new york and big co near paris"] * 10


def span_tagger(**options: object) -> BertSpanForNer:
    config = tiny_config("bert")
    BertSpanForNer.configure(config, LabelSpace(["A", "B"], "bio"), BertSpanForNer.Options(**options))
    torch.manual_seed(0)
    return BertSpanForNer(config).eval()


def predicted(model: BertSpanForNer, starts: str, ends: str) -> list[Entity]:
    ids = {name: index for index, name in enumerate(model.label_names)} | {".": 0}
    labels = torch.tensor([[[ids[start], ids[end]] for start, end in zip(starts, ends, strict=True)]])
    emissions = 20 * torch.nn.functional.one_hot(labels, 3).flatten(2).float()
    mask = torch.ones(1, len(starts), dtype=torch.bool)
    return model.predict(emissions, mask)[0].entities


@pytest.mark.parametrize(
    ("starts", "ends", "entities"),
    [
        ("A....", "..A..", [("A", 0, 2)]),
        ("A....", "A.A..", [("A", 0, 0)]),  # the nearest end
        ("A.A..", "....A", [("A", 0, 4), ("A", 2, 4)]),  # starts share an end
        ("AB...", "..AB.", [("A", 0, 2), ("B", 1, 3)]),  # types overlap
        ("A..B.", "B....", []),  # an end before its start, and one of another type
    ],
)
def test_a_start_belongs_to_the_nearest_end_of_its_type(
    starts: str, ends: str, entities: list[tuple[str, int, int]]
) -> None:
    assert predicted(span_tagger(), starts, ends) == entities


def test_what_cannot_be_expressed_is_known() -> None:
    def lost(*entities: Entity) -> set[Entity]:
        return set(entities) - set(span_tagger().expressible(entities))

    outer = Entity("A", 0, 4)
    for inner in (Entity("A", 0, 2), Entity("B", 0, 2), Entity("B", 2, 4), Entity("A", 1, 2), Entity("B", 0, 4)):
        assert len(lost(outer, inner)) == 1, inner
    assert lost(outer, Entity("A", 3, 5)) == {Entity("A", 3, 5)}
    assert not lost(outer, Entity("A", 3, 4), Entity("B", 1, 1), Entity("B", 2, 6), Entity("A", 5, 7))


def test_a_confidence_is_the_share_of_all_label_sequences_that_hold_the_entity() -> None:
    model, W, L = span_tagger(), 3, 3
    emissions = torch.randn(1, W, 2 * L)
    probabilities = emissions.view(W, 2, L).softmax(-1)
    expected: dict[Entity, float] = {}
    for starts, ends in itertools.product(itertools.product(range(L), repeat=W), repeat=2):
        labels = torch.tensor([starts, ends]).T.unsqueeze(-1)
        weight = float(probabilities.gather(-1, labels).prod())
        letters = ["".join(".AB"[label] for label in side) for side in (starts, ends)]
        for entity in predicted(model, *letters):
            expected[entity] = expected.get(entity, 0) + weight
    row = probabilities.numpy()
    assert len(expected) == 12
    for entity, share in expected.items():
        assert model._confidence(row, entity) == pytest.approx(share, abs=1e-5)
    found = model.predict(emissions, torch.ones(1, W, dtype=torch.bool), with_confidence=True)[0]
    assert found.confidences == [pytest.approx(expected[one], abs=1e-5) for one in found.entities]


@pytest.mark.parametrize("soft", [True, False])
def test_the_end_classifier_sees_the_annotated_starts_in_training_only(soft: bool) -> None:
    model = span_tagger(soft_label=soft)
    states, mask = torch.randn(1, 3, 32), torch.ones(1, 3, dtype=torch.bool)
    targets = model.encode([Annotation(3, [Entity("A", 0, 1)], unannotated=[(2, 2)])])

    def ends(own_starts: list[float], wanted: Tensor | None) -> Tensor:
        model.start_fc[0].bias.data = torch.tensor(own_starts)
        scores = model.emissions(states, mask) if wanted is None else model.training_emissions(states, mask, wanted)
        return scores[0, :, 3:]

    outside, starting = [50.0, 0.0, 0.0], [0.0, 0.0, 50.0]
    assert not torch.allclose(ends(outside, None), ends(starting, None))
    first, second = ends(outside, targets), ends(starting, targets)
    assert torch.equal(first[:2], second[:2])
    assert not torch.allclose(first[2], second[2])  # which nobody has annotated
    batch = batch_of(model, random_rows([8]))
    batch["labels"] = model.encode([Annotation(4, [Entity("A", 0, 1)])])
    logits = [model.train(training)(**batch).logits for training in (True, False)]
    assert logits[0].shape == logits[1].shape == (1, 4, 6)


@pytest.mark.parametrize("loss", ["ce", "focal", "lsr"])
def test_the_loss_is_the_mean_of_that_of_starts_and_of_ends(loss: str) -> None:
    model = span_tagger(loss=loss)
    assert model.config.tag_loss == loss
    emissions, mask = torch.randn(1, 4, 6), torch.tensor([[True, True, True, False]])
    targets = model.encode([Annotation(4, [Entity("A", 0, 1)])])
    starts, ends = (model.token_losses(emissions[0, :3, 3 * k : 3 * k + 3], targets[0, :3, k]).sum() for k in (0, 1))
    torch.testing.assert_close(model.losses(emissions, targets, mask)[0], (starts + ends) / 2)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("task", NUMBERED_TYPES)
def test_a_model_of_bert_ner_pytorch_predicts(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path, task: str, soft: bool
) -> None:
    """Its config numbers the labels and names no head; its file is pytorch_model.bin, with a pooler."""
    torch.manual_seed(0)
    names = NUMBERED_TYPES[task]
    config = AutoConfig.from_pretrained(encoder, num_labels=len(names))
    config.soft_label = soft
    model = BertSpanForNer(config)
    weights = model.state_dict()
    size = 64 + (len(names) if soft else 1)
    assert {name: tuple(weight.shape) for name, weight in weights.items() if not name.startswith("bert.")} == {
        "start_fc.dense.weight": (len(names), 64),
        "start_fc.dense.bias": (len(names),),
        "end_fc.dense_0.weight": (size, size),
        "end_fc.dense_0.bias": (size,),
        "end_fc.LayerNorm.weight": (size,),
        "end_fc.LayerNorm.bias": (size,),
        "end_fc.dense_1.weight": (len(names), size),
        "end_fc.dense_1.bias": (len(names),),
    }
    weights["start_fc.dense.weight"] *= 30
    model.config.save_pretrained(tmp_path)
    torch.save({**weights, "bert.pooler.dense.weight": torch.zeros(64, 64)}, tmp_path / "pytorch_model.bin")
    bert.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", architectures=None, id2label=None, label2id=None, num_labels=None)
    predictor = NerPredictor.load(tmp_path, "cpu")
    assert type(predictor.model) is BertSpanForNer
    assert predictor.model.label_names == list(names)
    assert predictor.cutter.unit == "char"
    found = [one for entities in predictor(TEXTS) for one in entities]
    assert found
    assert {one.type for one in found} <= {*names[1:]}


def test_the_command_line_of_bert_ner_pytorch_runs(encoder: Path, tmp_path: Path) -> None:
    words = [*"张三是清华大学的教授", *"李四毕业于北京大学"]
    tags = ["B-NAME", "E-NAME", "O", "B-ORG", *["M-ORG"] * 2, "E-ORG", "O", "B-TITLE", "E-TITLE"]
    tags += ["B-NAME", "E-NAME", *["O"] * 3, "B-ORG", *["M-ORG"] * 2, "E-ORG"]
    text = "".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)) + "\n"
    (tmp_path / "cner").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "cner" / f"{split}.char.bmes").write_text(text * 4, "utf-8")
    output = tmp_path / "outputs" / "cner_output"
    command = f"""--model_type=bert --model_name_or_path={encoder} --task_name=cner --do_train --do_eval
        --do_lower_case --loss_type=lsr --data_dir={tmp_path}/cner/ --train_max_seq_length=128 --eval_max_seq_length=512
        --per_gpu_train_batch_size=24 --per_gpu_eval_batch_size=24 --learning_rate=3e-5 --num_train_epochs=1.0
        --logging_steps=-1 --save_steps=-1 --output_dir={output}/ --overwrite_output_dir --seed=42 --soft_label
        --from_scratch --no_cuda --feature_cache_dir={tmp_path}/cache"""
    with patch.object(sys, "argv", ["run_ner_span.py", *command.split()]):
        run_script(run_ner_span.main)
    config = read_json(output / "config.json")
    assert (config["architectures"], config["soft_label"], config["tag_loss"]) == (["BertSpanForNer"], True, "lsr")
    assert config["id2label"]["0"] == "O"
    assert json.loads((output / "eval_results.json").read_text("utf-8"))["support"] > 0
