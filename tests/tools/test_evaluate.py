"""Scores of dev: written, printed and returned alike."""

import logging
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

import tools.evaluate
from analysis.documents import count_entities, digest_of, read_documents
from analysis.metrics import EntityScores, Score
from callbacks import ScoredText
from common.run_files import RunFolder
from common.tag_schemes import MARKUPS, entities_to_tags
from tests.tags import scores_of_tags
from tests.tools.ranks import on_ranks
from tests.tools.runs import prepared, read_json, replace, split_of
from tools.data import load_and_cache_examples
from tools.decoding import TaggedDocument
from tools.evaluate import SplitScores, evaluate, report_scores, score_dataset
from tools.run import Run


@pytest.mark.parametrize("head", ["crf", "softmax"])
def test_scores_and_loss_are_those_of_a_direct_pass(head: str, crf_args: Run, softmax_args: Run) -> None:
    args: Run = crf_args if head == "crf" else softmax_args
    args, model, tokenizer = prepared(args)
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data.add_(0.2 * torch.randn_like(weight))
    dataset = load_and_cache_examples(args, args.corpus.task_name, tokenizer, "dev")
    assert len(dataset) == dataset.num_documents  # a window a document
    batch = dataset.collate([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        output = model.eval()(**batch)
        best = model.decode(output.logits, batch["word_mask"])
    gold, predicted = [], []
    for row, words in enumerate(batch["word_mask"].sum(1).tolist()):
        gold.append([model.label_names[label] for label in batch["labels"][row, :words]])
        predicted.append([model.label_names[label] for label in best[row, :words]])
    scores = score_dataset(args, model, dataset, "Testing")
    assert scores.loss == pytest.approx(output.loss.item(), rel=1e-4)
    assert scores.entities == scores_of_tags(gold, predicted, args.markup)
    in_file = Path(args.settings.data.data_dir, "dev.txt").read_text("utf-8").count(" B-")
    assert scores.entities.micro.support == in_file > 20


def test_examples_show_wrong_texts_first(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    dataset = load_and_cache_examples(crf_args, crf_args.corpus.task_name, tokenizer, "dev")
    examples = score_dataset(crf_args, model, dataset, "").examples
    assert len(examples) == 8
    assert all(one.gold != one.predicted for one in examples)  # nothing is learnt yet
    gold, words = dataset.annotation(0).entities or [], dataset.document(0).words
    first = [f"{one.type}: {' '.join(words[one.first_word : one.last_word + 1])}" for one in gold]
    assert examples[0] == ScoredText(dataset.document(0).text, first, examples[0].predicted)


def test_results_are_returned_written_and_printed(crf_args: Run, capsys: pytest.CaptureFixture[str]) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    results = evaluate(crf_args, model, tokenizer)
    folder = crf_args.folder.path
    assert read_json(folder / "eval_results.json") == results
    lines = (folder / "eval_results.txt").read_text("utf-8").splitlines()
    for name in ("loss", "precision", "recall", "f1", "strict_f1"):
        assert f"{name} = {results[name]}" in lines
    for entity_type, score in results["types"].items():
        assert any(line.startswith(f"{entity_type}: ") and f"f1 = {score['f1']} " in line for line in lines)
    low, high = results["intervals"]["f1"]
    assert f"f1 95 % interval = {low} {high}" in lines
    assert low <= results["f1"] <= high
    printed = capsys.readouterr().out
    assert "micro" in printed
    assert "seen in train" in printed
    assert all(entity_type in printed for entity_type in results["types"])


def test_the_documents_are_written_with_their_entities(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    results = evaluate(crf_args, model, tokenizer)
    documents = read_documents(Path(crf_args.folder.path, "eval_documents.jsonl"))
    blocks = Path(crf_args.settings.data.data_dir, "dev.txt").read_text("utf-8").strip().split("\n\n")
    assert [document.words for document in documents] == [
        [line.split()[0] for line in block.splitlines()] for block in blocks
    ]
    right, predicted, gold = count_entities(documents).sum(0).tolist()
    assert (results["precision"], results["recall"]) == pytest.approx((right / predicted, right / gold))
    assert results["documents"] == digest_of(documents)
    train = Path(crf_args.settings.data.data_dir, "train.txt").read_text("utf-8")
    assert results["novelty"]["seen in train"]["support"] == sum(
        document.surface(entity).split()[0] + " B-" in train for document in documents for entity in document.gold
    )


def test_what_is_odd_is_said(crf_args: Run, caplog: pytest.LogCaptureFixture) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    model.classifier.bias.data[model.label_names.index("O")] += 1000
    with caplog.at_level(logging.WARNING):
        evaluate(crf_args, model, tokenizer)
    assert any(message.startswith("dev: only O is predicted") for message in caplog.messages)


def test_while_training_nothing_is_analysed(crf_args: Run) -> None:
    crf_args, model, dataset = split_of(crf_args)
    assert score_dataset(crf_args, model, dataset, "Testing").analysis is None


def test_a_prefix_is_a_folder_below(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    evaluate(crf_args, model, tokenizer, "checkpoint-8")
    assert Path(crf_args.folder.path, "checkpoint-8", "eval_results.json").is_file()
    assert not Path(crf_args.folder.path, "eval_results.json").exists()


def report(folder: Path) -> tuple[str, list[str]]:
    """What this rank prints, and the files that are there when it goes on."""
    with redirect_stdout(StringIO()) as printed:
        report_scores(SplitScores(EntityScores(strict=Score()), 0.0), RunFolder(folder), "dev", "dev")
    return printed.getvalue(), sorted(path.name for path in folder.iterdir())


def test_one_rank_prints_and_writes_and_the_others_wait_for_it(tmp_path: Path) -> None:
    (by_main, written), (by_other, seen) = on_ranks(2, report, tmp_path)
    assert "strict by scheme" in by_main
    assert by_other == ""
    assert seen == written == ["eval_results.json", "eval_results.txt"]


def test_headline_scores_are_numbers_only() -> None:
    headline = SplitScores(scores_of_tags([["S-PER"]], [["S-PER"]], "bios"), 0.5).headline()
    assert headline["loss"] == 0.5
    assert all(isinstance(value, float) for value in headline.values())


def test_the_labels_are_the_models_whatever_the_arguments_say(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    expected = evaluate(crf_args, model, tokenizer)
    assert evaluate(replace(crf_args), model, tokenizer) == expected  # new arguments have no labels yet


def test_a_perfect_model_scores_one(crf_args: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    dataset = load_and_cache_examples(crf_args, "tiny", tokenizer, "dev")

    def gold(*_: object) -> list[object]:
        known = [dataset.annotation(document) for document in range(dataset.num_documents)]
        tags = [entities_to_tags(one.entities or [], one.words, MARKUPS[crf_args.markup]) for one in known]
        entities = [list(one.entities or []) for one in known]
        return [TaggedDocument(number, *row, [], 0.25) for number, row in enumerate(zip(tags, entities, strict=True))]

    monkeypatch.setattr(tools.evaluate, "tag_documents", gold)
    scores = score_dataset(crf_args, model, dataset, "Testing")
    assert scores.entities.strict
    assert scores.entities.micro.f1 == scores.entities.strict.f1 == scores.entities.accuracy == 1.0
    assert scores.loss == pytest.approx(0.25 * dataset.num_documents / dataset.num_words)
