"""Students that learn the distributions of trained models."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from tests.helpers import write_corpus
from tests.models.families import LABELS, tiny_tagger
from tests.tools.runs import FinishedRun, call_script, read_json

C, LENGTHS = len(LABELS), (3, 0, 1, 2)
HEADS: list[type[FlatTagger]] = [BertCrfForNer, BertSoftmaxForNer]


def random_tagger(head: type[FlatTagger], seed: int) -> FlatTagger:
    model = tiny_tagger(head)
    if isinstance(model, BertCrfForNer):
        torch.manual_seed(seed)
        for weight in model.crf.parameters():
            weight.data.uniform_(-2, 2)
    return model


def log_probabilities(model: FlatTagger, emissions: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The log-probability of each tag sequence of one text, by enumeration."""
    W, scores = len(emissions), {}
    for path in itertools.product(range(C), repeat=W):
        score = emissions[range(W), path].sum()
        if isinstance(model, BertCrfForNer) and W:
            score = score + model.crf.start_transitions[path[0]] + model.crf.end_transitions[path[-1]]
            score = score + model.crf.transitions[list(path[:-1]), list(path[1:])].sum()
        scores[path] = score
    total = torch.stack(list(scores.values())).logsumexp(0)
    return {path: score - total for path, score in scores.items()}


@pytest.mark.parametrize("student_head", HEADS)
@pytest.mark.parametrize("teacher_head", HEADS)
def test_the_loss_is_the_cross_entropy_over_all_sequences(
    teacher_head: type[FlatTagger], student_head: type[FlatTagger]
) -> None:
    teacher, student = random_tagger(teacher_head, 1), random_tagger(student_head, 2)
    of_teacher, of_student = torch.randn(2, len(LENGTHS), 3, C, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(3) < torch.tensor(LENGTHS)[:, None]
    with torch.no_grad():
        taught = teacher.expectations(of_teacher, mask)
    loss = student.distillation_loss(of_student.requires_grad_(), mask, taught)
    expected = torch.tensor(0.0)
    for row, W in enumerate(LENGTHS):
        known = log_probabilities(student, of_student[row, :W])
        for path, value in log_probabilities(teacher, of_teacher[row, :W]).items():
            expected = expected - value.detach().exp() * known[path]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    inputs = [of_student, *(student.crf.parameters() if isinstance(student, BertCrfForNer) else ())]
    for found, right in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


def test_a_temperature_flattens_both_distributions_and_keeps_the_size_of_gradients() -> None:
    student = tiny_tagger(BertSoftmaxForNer)
    scores, mask = torch.tensor([[[4.0, 0.0, 0.0, 0.0, 0.0]]])[..., :C], torch.ones(1, 1, dtype=torch.bool)
    taught = student.expectations(scores, mask, temperature=2.0)
    torch.testing.assert_close(taught.tags, (scores / 2).softmax(-1))
    own = torch.zeros_like(scores).requires_grad_()
    student.distillation_loss(own, mask, taught, temperature=2.0).backward()
    torch.testing.assert_close(own.grad, 2 * (torch.full_like(scores, 1 / C) - taught.tags))


def student_options(run: FinishedRun, encoder: Path, home: Path, **changes: Any) -> dict[str, Any]:
    """Flags of a student that sees one labelled sentence; what else it knows comes from the teacher."""
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    lines = (corpus / "train.txt").read_text("utf-8").split("\n\n")
    (corpus / "train.txt").write_text("\n\n".join(lines[:6]) + "\n\n", "utf-8")
    (home / "more.txt").write_text("\n".join(texts_of(lines[6:])), "utf-8")
    own = {"data_dir": str(corpus), "output_dir": str(home / "student"), "model_name_or_path": str(encoder)}
    return {**run.options, **own, "from_scratch": True, "do_train": True, "teacher": str(run.folder), **changes}


def texts_of(sentences: list[str]) -> list[str]:
    return [" ".join(line.split()[0] for line in sentence.splitlines() if line) for sentence in sentences]


@pytest.mark.parametrize("script", ["run_ner_softmax", "run_pl_ner"])
def test_a_student_learns_from_texts_without_labels(
    crf_run: FinishedRun, softmax_run: FinishedRun, encoder: Path, tmp_path: Path, script: str
) -> None:
    options = student_options(crf_run, encoder, tmp_path, num_train_epochs=6.0, do_eval=True, markup="bios")
    options |= {"per_gpu_train_batch_size": 8}
    taught = {"teacher": f"{crf_run.folder},{softmax_run.folder}", "distill_weight": 0.9}
    call_script(script, **options | taught, unlabelled_file=str(tmp_path / "more.txt"))
    learnt = read_json(tmp_path / "student" / "eval_results.json")
    call_script(script, **{**options, "teacher": ""}, overwrite_output_dir=True)
    alone = read_json(tmp_path / "student" / "eval_results.json")
    assert learnt["f1"] > alone["f1"] + 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "nowhere"}, "no such folder: .*nowhere; name the output_dir of a run with --teacher"),
        ({"markup": "bio"}, r"its tags differ from those of the student \(gone: S-"),
        ({"casing": True}, "--casing must be as in its training"),
        ({"distill_temperature": 2.0}, "a CRF has no temperature"),
        ({"unlabelled_file": "nowhere.txt"}, "nowhere.txt: there is no such file"),
        ({"teacher": "", "distill_weight": 0.1}, "--distill_weight 0.1 has no effect without --teacher"),
    ],
)
def test_what_does_not_fit_is_refused(
    crf_run: FinishedRun,
    encoder: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        call_script("run_ner_crf", **student_options(crf_run, encoder, tmp_path, **changes))
    assert re.search(message, f"{end.value}{capsys.readouterr().err}")
