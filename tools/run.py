"""Immutable context of a run: settings, corpus, device, folder, and the properties of the loaded model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from common.entities import Entity
from common.run_files import RunFolder
from processors.corpora import read_corpora
from processors.corpus import Corpus
from processors.features.dataset import Encode
from tools.precision import Precision, choose_precision
from tools.settings import EVAL_WINDOW, DataSettings, Settings


@dataclass(frozen=True)
class Run:
    """Settings, corpus, device and folder of a run, and how the model reads text and encodes labels.

    `tools.recipe.start_run` makes it; `tools.loading` returns a copy with the properties of the model. For rank and
    number of processes see `tools.distributed`.

    Args:
        settings: settings of the user.
        corpus: reader of the data, which splits raw text into words as the model expects.
        folder: ``output_dir``.
        device: device of this process.
        n_gpu: number of GPUs of this process; more than one for DataParallel.
        precision: precision of forward and backward passes.
        types: entity types of the model; empty before a model is loaded.
        encode: makes the labels of a batch; ``None`` before a model is loaded.
        nests: whether the model can find overlapping entities.
        expressible: selects the entities of a text that the model can learn; ``None`` before a model is loaded.
        markup: tag scheme.
        model_type: family of the encoder; empty if the settings do not name it and no model is loaded.
        casing_types: token types that mark the casing of words; usually empty.
        train_max_seq_length, eval_max_seq_length: window length in tokens, at most the encoder's positions.
        window_overlap: word pieces shared by neighbouring windows; -1: a quarter of a window.
        context_size: tokens of context on each side of a sentence, at most; 0: as many as fit; ``None``: no context.
        opened: datasets that were already rebuilt and reported, which `tools.data` does once per run.
    """

    settings: Settings
    corpus: Corpus
    folder: RunFolder
    device: torch.device
    n_gpu: int
    precision: Precision
    markup: str
    model_type: str
    casing_types: tuple[int, ...]
    train_max_seq_length: int
    eval_max_seq_length: int
    window_overlap: int
    context_size: int | None = None
    types: tuple[str, ...] = ()
    encode: Encode | None = field(default=None, repr=False, compare=False)
    nests: bool = False
    expressible: Callable[[Sequence[Entity]], list[Entity]] | None = field(default=None, repr=False, compare=False)
    opened: set[tuple[str | int, ...]] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings, device: torch.device | None = None, n_gpu: int = 0) -> "Run":
        """Make a run without a model. Reads and writes no files.

        Args:
            device: device; default: the CPU.

        Raises:
            ValueError: the device does not support the chosen precision.
        """
        device = device or torch.device("cpu")
        return cls(
            settings=settings,
            corpus=corpus_of(settings.data),
            folder=RunFolder(Path(settings.actions.output_dir)),
            device=device,
            n_gpu=n_gpu,
            precision=choose_precision(settings.machine, device),
            markup=settings.data.markup,
            model_type=settings.model.model_type,
            casing_types=(),
            train_max_seq_length=settings.model.train_max_seq_length,
            eval_max_seq_length=settings.model.eval_max_seq_length or EVAL_WINDOW,
            window_overlap=settings.model.window_overlap,
            context_size=settings.model.context_size if settings.model.document_context else None,
        )

    def applying(self) -> "Run":
        """Copy of the run that applies a trained model without training."""
        return replace(self, settings=self.settings.replace(do_train=False))

    def window(self, split: str) -> int:
        """Window length of a split, in tokens."""
        return self.train_max_seq_length if split == "train" else self.eval_max_seq_length

    def cut_by(self, word_unit: str, kept_words: Sequence[str]) -> "Run":
        """Copy of the run with other word splitting of raw text; see `processors.text.word_cutting.WordCutter`."""
        return replace(self, corpus=self.corpus.variant(word_unit=word_unit, kept_words=tuple(kept_words)))


def corpus_of(data: DataSettings) -> Corpus:
    """Make the corpus from the settings; of several corpora, one of all.

    Raises:
        DataError: the file that names several corpora is wrong.
    """
    labels_file, cache_dir = Path(data.labels) if data.labels else None, Path(data.feature_cache_dir)
    if data.corpora:
        common = {"labels_file": labels_file, "cache_dir": cache_dir, "word_unit": data.word_unit}
        return read_corpora(Path(data.corpora), data.task_name, **common)
    files = {"train": data.train_file, "dev": data.dev_file, "test": data.test_file}
    return Corpus(
        task_name=data.task_name,
        data_dir=Path(data.data_dir) if data.data_dir else None,
        split_files={split: Path(path) for split, path in files.items() if path},
        dataset_name=data.dataset_name,
        tag_column=data.tag_column,
        word_column=data.word_column,
        word_unit=data.word_unit,
        span_edges=data.span_edges,
        offset_unit=data.offset_unit,
        labels_file=labels_file,
        cache_dir=cache_dir,
        complete_types=tuple(filter(None, map(str.strip, data.complete_types.split(",")))),
    )
