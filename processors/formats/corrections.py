"""Tasks to correct the annotation of a corpus in doccano or Label Studio, which read back as the corpus.

A task carries the words of its text and the name of its document besides the annotation, and doccano and Label Studio
export what they do not know unchanged. So nothing but the annotation differs in what is read back.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from processors.examples import Example, Findings
from processors.formats.label_studio import task_of
from processors.formats.writers import doccano_record, write_records, write_tasks


@dataclass(frozen=True)
class Correction:
    """A text to correct.

    Args:
        example: the text with its annotation.
        predicted: the text with the entities and confidences of a model; ``None`` if nothing is wrong with it.
        suspicion: how likely something is wrong, from 0 to 1.
        remark: what it is.
    """

    example: Example
    predicted: Example | None = None
    suspicion: float = 0.0
    remark: str = ""

    @property
    def details(self) -> dict[str, Any]:
        """What a task tells besides text and annotation."""
        offsets = self.example.offsets or []
        found: dict[str, Any] = {"tokens": [{"start": start, "end": end} for start, end in offsets]}
        if self.example.document:
            found["doc_id"] = self.example.document
        if self.remark:
            found |= {"suspicion": round(self.suspicion, 4), "remark": self.remark}
        return found


def _doccano(offset_unit: str, corrections: Iterable[Correction], path: Path) -> Findings:
    return write_records((doccano_record(one.example, offset_unit) | one.details for one in corrections), path)


def _label_studio(corrections: Iterable[Correction], path: Path) -> Findings:
    return write_tasks(map(_task, corrections), path)


def _task(correction: Correction) -> Mapping[str, Any]:
    task = task_of(correction.example)
    task["data"] |= correction.details
    if correction.predicted is not None:
        task["predictions"] = task_of(correction.predicted)["predictions"]
    return task


@dataclass(frozen=True)
class CorrectionFormat:
    """Suffix and writer of a task file."""

    suffix: str
    write: Callable[[Iterable[Correction], Path], Findings]


CORRECTIONS = {
    "doccano": CorrectionFormat(".jsonl", partial(_doccano, "code_point")),
    "doccano_utf16": CorrectionFormat(".jsonl", partial(_doccano, "utf16")),
    "label_studio": CorrectionFormat(".json", _label_studio),
}
