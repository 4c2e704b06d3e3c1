"""The tutorial: one file that stands alone, and whose score is the strict one."""

import ast
import json
import random
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase, RobertaConfig, RobertaTokenizer, set_seed

import bert_ner
from bert_ner import (
    IGNORED,
    BertNERModel,
    Example,
    cut,
    evaluate,
    is_without_weights,
    make_batches,
    read_sentences,
    score,
    split,
    train,
)
from tests.helpers import ROOT, write_corpus
from tests.tags import scores_of_tags
from tests.tools.runs import start_script

SCRIPT = ROOT / "bert_ner.py"
SAMPLE = ROOT / "datasets" / "sample"
NAMES = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
label_sequences = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)
Sentences = list[tuple[list[str], list[str]]]


def write(path: Path, entries: Any) -> Path:
    path.write_text(json.dumps(entries), "utf-8")
    return path


def entry(words: str, labels: str) -> dict[str, str]:
    return {"sents": words, "ner_labels": labels}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The tiny corpus in the tutorial's form."""
    text = (write_corpus(tmp_path / "columns", {"train": 60}) / "train.txt").read_text("utf-8")
    sentences = [[line.split() for line in block.splitlines()] for block in text.strip().split("\n\n")]
    entries = [entry(*(" ".join(column) for column in zip(*rows, strict=True))) for rows in sentences]
    return write(tmp_path / "data.json", dict(enumerate(entries)))


@pytest.fixture
def tokenizer(encoder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(encoder, add_prefix_space=True)


def options(**changes: Any) -> Namespace:
    values = {"label_pieces": "first", "max_length": 64, "batch_size": 8, "epochs": 1, "check_step": 5, "seed": 1}
    return Namespace(**{**values, "model": "tiny", "learning_rate": 2e-3, **changes})


def test_the_file_is_short_and_imports_nothing_of_the_project() -> None:
    source = SCRIPT.read_text("utf-8")
    assert len(source.splitlines()) < 200
    nodes = list(ast.walk(ast.parse(source)))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not {name.partition(".")[0] for name in imported} & own


# Reading and splitting


def test_sentences_are_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "data.json", {"0": entry("anna  left", "B-PER O"), "x": entry("rome", "B-LOC")})
    assert read_sentences(path) == [(["anna", "left"], ["B-PER", "O"]), (["rome"], ["B-LOC"])]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"sents": "anna"}, "not of the form"),
        ({"ner_labels": "O"}, "not of the form"),
        ({"sents": ["anna"], "ner_labels": ["O"]}, "not of the form"),
        ("anna", "not of the form"),
        (entry("anna left", "B-PER"), "2 words and 1 labels"),
        (entry("", ""), "0 words"),
        (entry("anna left", "O I-PER"), "I-PER follows O"),
        (entry("anna left", "B-LOC I-PER"), "I-PER follows B-LOC"),
        (entry("anna left", "PER O"), "not IOB2: PER"),
    ],
)
def test_an_entry_that_is_wrong_is_named(tmp_path: Path, wrong: Any, complaint: str) -> None:
    path = write(tmp_path / "data.json", {"0": entry("anna", "B-PER"), "17": wrong})
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, entry '17' .*{complaint}"):
        read_sentences(path)


@pytest.mark.parametrize("text", ['{"0": ', '["a"]', '{"tokens": []}\n{"tokens": []}\n'])
def test_a_file_that_is_not_one_object_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not one JSON object"):
        read_sentences(path)


def test_the_split_keeps_every_sentence_and_depends_on_the_seed_alone() -> None:
    sentences: Sentences = [([str(number)], ["O"]) for number in range(11)]
    left, right = split(sentences, 0.8, seed=3)
    assert (len(left), len(right)) == (9, 2)
    assert sorted(left + right) == sorted(sentences)
    assert (left, right) == split(sentences, 0.8, seed=3)
    assert (left, right) != split(sentences, 0.8, seed=4)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0, 1.5, -0.5])
def test_a_ratio_that_leaves_a_part_empty_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="leaves one part empty"):
        split([(["a"], ["O"])] * 10, ratio, seed=0)


# Words and pieces


def test_the_first_piece_or_all_pieces_learn_the_label(tokenizer: PreTrainedTokenizerBase) -> None:
    sentence = (["anna", "zig", "left"], ["B-PER", "I-PER", "O"])
    first, every = (cut(sentence, tokenizer, NAMES, options(label_pieces=which)) for which in ("first", "all"))
    pieces = ["[CLS]", "anna", "z", "##i", "##g", "left", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(first.ids.tolist()) == pieces
    assert first.targets.tolist() == [IGNORED, 1, 3, IGNORED, IGNORED, 4, IGNORED]
    assert every.targets.tolist() == [IGNORED, 1, 3, 3, 3, 4, IGNORED]
    assert first.first_pieces == every.first_pieces == [1, 2, 5]


def test_words_beyond_the_limit_and_words_without_pieces_are_lost(tokenizer: PreTrainedTokenizerBase) -> None:
    sentence = (["the", "\u200b", "man", "zig", "left"], ["O", "O", "B-PER", "I-PER", "O"])
    example = cut(sentence, tokenizer, NAMES, options(max_length=5))
    assert example.first_pieces == [1, None, 2, 3, None]
    assert example.targets.tolist() == [IGNORED, 4, 1, 3, IGNORED]
    assert example.labels == sentence[1]


def test_a_word_that_spells_a_separator_is_an_unknown_one(tokenizer: PreTrainedTokenizerBase) -> None:
    example = cut((["anna", "[SEP]", "left"], ["B-PER", "I-PER", "O"]), tokenizer, NAMES, options())
    assert tokenizer.convert_ids_to_tokens(example.ids.tolist()) == ["[CLS]", "anna", "[UNK]", "left", "[SEP]"]
    assert example.targets.tolist() == [IGNORED, 1, 3, 4, IGNORED]


def test_batches_hold_every_example_once_and_little_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    sentences = [(["the"] * (1 + number % 9), ["O"] * (1 + number % 9)) for number in range(45)]
    examples = [cut(sentence, tokenizer, NAMES, options()) for sentence in sentences]
    batches = make_batches(examples, 5, random.Random(0))
    assert sorted(id(example) for batch in batches for example in batch) == sorted(map(id, examples))
    assert all(len({len(example.ids) for example in batch}) == 1 for batch in batches)
    assert [len(batch[0].ids) for batch in batches] != sorted(len(batch[0].ids) for batch in batches)


# The score


def count_entities(sentences: list[list[str]]) -> list[tuple[int, int, int, str]]:
    """Entities by the definition: a B-, and the longest run of I- of its type behind it."""
    found = []
    for number, labels in enumerate(sentences):
        for start, label in enumerate(labels):
            if label.startswith("B-"):
                end = start + 1
                while end < len(labels) and labels[end] == f"I-{label[2:]}":
                    end += 1
                found.append((number, start, end, label[2:]))
    return found


@st.composite
def gold_and_predicted(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    """Labels of some sentences, well-formed or not, and others of the same lengths."""
    gold = draw(st.lists(label_sequences, min_size=1, max_size=5))
    sizes = [len(labels) for labels in gold]
    return gold, [draw(st.lists(st.sampled_from(NAMES), min_size=size, max_size=size)) for size in sizes]


@given(gold_and_predicted())
def test_the_score_is_the_strict_one_and_an_independent_count(pair: tuple[list[list[str]], list[list[str]]]) -> None:
    gold, predicted = pair
    strict = scores_of_tags(gold, predicted, "bio").strict
    assert strict
    assert score(gold, predicted) == pytest.approx((strict.precision, strict.recall, strict.f1))
    wanted, found = map(count_entities, pair)
    right = sum(entity in wanted for entity in found)
    precision, recall = right / len(found) if found else 0, right / len(wanted) if wanted else 0
    f1 = 2 * precision * recall / (precision + recall) if right else 0
    assert score(gold, predicted) == pytest.approx((precision, recall, f1))


def test_entities_end_with_their_sentence() -> None:
    gold = [["O", "B-PER"], ["I-PER", "O"]]
    assert score(gold, [["O", "B-PER"], ["O", "O"]]) == (1, 1, 1)
    assert score([["O", "B-PER", "I-PER", "O"]], [["O", "B-PER", "O", "O"]]) == (0, 0, 0)


class Oracle(BertNERModel):
    """Knows the label of each word, and says B-PER where nobody should listen."""

    def forward(self, batch: list[Example]) -> torch.Tensor:
        longest = max(len(example.ids) for example in batch)
        best = torch.full((len(batch), longest), self.labels.index("B-PER"))
        for row, example in enumerate(batch):
            for label, place in zip(example.labels, example.first_pieces, strict=True):
                if place is not None:
                    best[row, place] = self.labels.index(label)
        return torch.nn.functional.one_hot(best, len(self.labels)).float()


@pytest.mark.parametrize("which", ["first", "all"])
def test_ignored_pieces_do_not_count_and_lost_words_do(
    encoder: Path, tokenizer: PreTrainedTokenizerBase, which: str
) -> None:
    sentences = [(["zig", "left", "rome"], ["B-LOC", "O", "B-LOC"]), (["anna"], ["B-PER"])]
    oracle = Oracle(str(encoder), NAMES)
    whole = [cut(sentence, tokenizer, NAMES, options(label_pieces=which)) for sentence in sentences]
    assert evaluate(oracle, whole, batch_size=2) == (1, 1, 1)
    short = [cut(sentence, tokenizer, NAMES, options(label_pieces=which, max_length=6)) for sentence in sentences]
    assert evaluate(oracle, short, batch_size=2) == pytest.approx((1, 2 / 3, 0.8))


# Training


def test_weights_decide_whether_an_encoder_starts_from_scratch(encoder: Path, tmp_path: Path) -> None:
    assert is_without_weights(str(encoder))
    assert not is_without_weights("bert-base-cased")
    BertNERModel(str(encoder), NAMES).encoder.save_pretrained(tmp_path)
    assert not is_without_weights(str(tmp_path))
    left, right = (BertNERModel(str(tmp_path), NAMES).encoder.state_dict() for _ in range(2))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_training_learns_and_a_checkpoint_brings_the_same_score(
    data: Path, encoder: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = read_sentences(data)
    labels = sorted({label for _, labels in sentences for label in labels})
    examples = [cut(sentence, tokenizer, labels, options()) for sentence in sentences]
    set_seed(1)
    model = BertNERModel(str(encoder), labels)
    before = evaluate(model, examples, 8)
    train(model, examples, examples, options(model=str(encoder), epochs=15, output_dir=tmp_path))
    after = evaluate(model, examples, 8)
    assert before[2] < 0.5 < 0.9 < after[2]
    steps = [int(step) for step in re.findall(r"step (\d+): precision", capsys.readouterr().out)]
    last = steps[-1]
    assert steps == sorted({*range(5, last + 1, 5), *range(last // 15, last + 1, last // 15)})

    checkpoint = torch.load(tmp_path / "epoch-15.pt", weights_only=True)
    assert len(list(tmp_path.glob("epoch-*.pt"))) == 15
    again = BertNERModel(checkpoint["encoder"], checkpoint["labels"])
    again.load_state_dict(checkpoint["weights"])
    assert evaluate(again, examples, 8) == after


def test_a_batch_of_lost_words_leaves_the_weights_finite(
    encoder: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    sentences = [(["\u200b"], ["O"]), (["anna"], ["B-PER"])]
    examples = [cut(sentence, tokenizer, NAMES, options()) for sentence in sentences]
    model = BertNERModel(str(encoder), NAMES)
    train(model, examples, examples, options(batch_size=1, output_dir=tmp_path))
    assert all(weight.isfinite().all() for weight in model.parameters())


# The command line


@pytest.fixture
def ordinary_algorithms() -> Iterator[None]:
    """Takes back what `main` asks of torch for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("ordinary_algorithms")
def test_a_byte_level_tokenizer_sees_the_space_before_each_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "n", "\u0120", "\u0120a"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges: Any = [("\u0120", "a")]
    RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1}
    RobertaConfig(vocab_size=len(pieces), max_position_embeddings=66, **sizes).save_pretrained(tmp_path)
    data = write(tmp_path / "data.json", {number: entry("a an", "O B-PER") for number in range(5)})
    seen = []

    def remember(model: BertNERModel, train_set: list[Example], dev_set: list[Example], args: Namespace) -> None:
        seen.extend([*train_set, *dev_set])
        train(model, train_set, dev_set, args)

    monkeypatch.setattr(bert_ner, "train", remember)
    flags = ["--data", data, "--model", tmp_path, "--output_dir", tmp_path / "run", "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["bert_ner.py", *map(str, flags)])
    bert_ner.main()
    assert [example.ids.tolist() for example in seen] == [[0, 8, 8, 6, 2]] * 5
    assert (tmp_path / "run" / "epoch-1.pt").is_file()


def test_the_sample_runs_without_data_or_model_named_and_twice_the_same(tmp_path: Path) -> None:
    outputs = [tmp_path / "one", tmp_path / "two"]
    runs = [start_script(str(SCRIPT), output_dir=output, epochs=1, check_step=30) for output in outputs]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert "train: 1200 sentences" in runs[0].stdout
    assert re.findall(r"step (\d+): precision", runs[0].stdout) == ["30", "38"]
    assert "epoch 1: 100%" in runs[0].stderr
    left, right = (torch.load(output / "epoch-1.pt", weights_only=True)["weights"] for output in outputs)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_parts_have_the_sizes_that_are_asked_for(tmp_path: Path) -> None:
    data = write(tmp_path / "data.json", {str(number): entry("Anna left", "B-PER O") for number in range(10)})
    run = start_script(str(SCRIPT), data=data, train_ratio=0.7, output_dir=tmp_path / "run", epochs=1)
    assert "train: 7 sentences" in run.stdout, run.stderr
    assert "dev: 3 sentences" in run.stdout


def test_what_is_wrong_ends_in_a_message(tmp_path: Path) -> None:
    run = start_script(str(SCRIPT), data=write(tmp_path / "data.json", {"7": entry("a b", "O")}))
    assert run.returncode == 1
    assert "entry '7' has 2 words and 1 labels" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("flag", ["max_length=2", "batch_size=0", "epochs=0", "check_step=0"])
def test_a_count_of_nothing_is_refused(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bert_ner.py", f"--{flag}"])
    with pytest.raises(SystemExit):
        bert_ner.parse_arguments()
    assert f"--{flag.partition('=')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "epochs", "rate"), [("bert-base-cased", 5, 5e-5), (str(SAMPLE / "encoder"), 20, 1e-3)]
)
def test_from_scratch_learns_longer_and_faster(
    model: str, epochs: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bert_ner.py", "--model", model])
    args = bert_ner.parse_arguments()
    assert (args.epochs, args.learning_rate) == (epochs, rate)
    monkeypatch.setattr("sys.argv", ["bert_ner.py", "--model", model, "--epochs=3", "--learning_rate=0.1"])
    args = bert_ner.parse_arguments()
    assert (args.epochs, args.learning_rate) == (3, 0.1)
