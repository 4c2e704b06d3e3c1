"""Knowledge distillation: a student learns the tag distributions of one or several trained models."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from callbacks.base import Callback, Forward, TrainState
from models.heads.flat import Expectations, FlatTagger
from models.tagger import Tagger, casing_types
from tools.heads import check_has_model, difference, head_of_folder
from tools.loading import load_model_and_tokenizer, positions_of
from tools.run import Run
from tools.settings import Settings

logger = logging.getLogger(__name__)


class Distillation(Callback):
    """Mixes the loss with the cross-entropy to the mean distribution of the teachers.

    Teachers read the batches of the student, without dropout. Words without annotation take part as well. See Hinton
    et al. 2015 for tags that are independent of each other, and Wang et al. 2021, Structural Knowledge Distillation,
    for CRFs.

    Args:
        teachers: see `load_teachers`.
        weight: weight of the cross-entropy; the loss on gold annotations has the rest.
        temperature: divides the scores of teachers and student.
    """

    def __init__(self, teachers: Sequence[FlatTagger], weight: float, temperature: float) -> None:
        self._teachers, self._weight, self._temperature = list(teachers), weight, temperature
        self._orders: list[list[int]] = []  # the teacher's id of each tag of the student

    def on_train_begin(self, state: TrainState) -> None:
        """Raise a ValueError if a teacher does not fit the student."""
        for teacher in self._teachers:
            check_teacher(teacher, cast(Tagger, state.model))
            teacher.eval().to(next(state.model.parameters()).device)
        self._orders = [[teacher.label_names.index(tag) for tag in state.tag_names] for teacher in self._teachers]

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        output, student = forward(batch), cast(FlatTagger, state.model)
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "num_items_in_batch")}
        mask, lessons = batch["word_mask"], []
        with torch.no_grad():
            for teacher, order in zip(self._teachers, self._orders, strict=True):
                tags, transitions = teacher.expectations(teacher(**inputs).logits, mask, self._temperature)
                lessons.append((tags[..., order], transitions[order][:, order]))
            taught = Expectations(*(torch.stack(parts).mean(0) for parts in zip(*lessons, strict=True)))
        distance = student.distillation_loss(output.logits, mask, taught, self._temperature)
        distance = distance / batch["num_items_in_batch"]
        loss = (1 - self._weight) * output.loss.sum() + self._weight * distance
        return type(output)(loss=loss, logits=output.logits)


def load_teachers(folders: Sequence[str], window: int) -> list[FlatTagger]:
    """Load trained models.

    Args:
        window: tokens per training window.

    Raises:
        ValueError: a folder holds no model, one that does not choose tags, or one for shorter windows.
    """
    teachers = []
    for folder in folders:
        check_has_model(folder, "name the output_dir of a run with --teacher")
        run = Run.of(Settings.of(output_dir=folder))
        teacher = load_model_and_tokenizer(run, head_of_folder(Path(folder)))[1]
        if not isinstance(teacher, FlatTagger) or teacher.nests:
            raise ValueError(f"--teacher {folder}: only heads that choose one tag per word can be distilled")
        if 0 < (positions := positions_of(teacher)) < window:
            raise ValueError(f"--teacher {folder} reads {positions} tokens, less than --train_max_seq_length {window}")
        teachers.append(teacher)
        logger.info("Teacher %s: %s, %.1f M parameters", folder, type(teacher).__name__, teacher.num_parameters() / 1e6)
    return teachers


def check_teacher(teacher: FlatTagger, student: Tagger) -> None:
    """Raise a ValueError if a teacher cannot read the student's batches, or has other tags."""
    faults = []
    if not isinstance(student, FlatTagger) or student.nests:
        faults.append(f"{type(student).__name__} does not choose one tag per word, and cannot be distilled")
    elif tags := difference(teacher.label_names, student.label_names):
        faults.append(f"its tags differ from those of the student ({tags})")
    if teacher.config.vocabulary_digest != student.config.vocabulary_digest:
        faults.append("it has another tokenizer")
    if casing_types(teacher) != casing_types(student):
        faults.append("--casing must be as in its training")
    contexts = [getattr(one.config, "context_size", None) for one in (teacher, student)]
    if contexts.count(None) == 1:
        faults.append("--document_context must be as in its training")
    if faults:
        raise ValueError(f"--teacher {teacher.name_or_path}: {'; '.join(faults)}")
