"""Cross-validation over the train split: its folds, and for each fold a model that has not seen its texts."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from common.run_files import RunFolder
from models.tagger import Tagger
from processors.corpus import Corpus
from processors.examples import Example
from processors.formats.writers import FORMATS
from processors.parsed import sentence_hash
from tools.loading import adopt_model, load_model_and_tokenizer
from tools.recipe import start_run, train_and_save
from tools.run import Run
from tools.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """A fold of the train split.

    Args:
        number: number of the fold, from 1.
        held_out: indices of its texts.
        others: indices of the texts to train on: those of other folds whose words do not occur in this one.
    """

    number: int
    held_out: list[int]
    others: list[int]


def make_folds(examples: Sequence[Example], count: int, seed: int) -> list[Fold]:
    """Divide texts into folds of about as many words. The sentences of a document stay together.

    Raises:
        ValueError: there are fewer documents than folds.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.document or f"text {index}", []).append(index)
    if len(groups) < count:
        raise ValueError(f"{count} folds need at least as many documents; there are {len(groups)}")
    names = list(groups)
    parts: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for place in np.random.default_rng(seed).permutation(len(names)):
        texts = groups[names[place]]
        smallest = sizes.index(min(sizes))
        parts[smallest] += texts
        sizes[smallest] += 1 + sum(len(examples[text].words) for text in texts)
    hashes = [sentence_hash([word.lower() for word in example.words]) for example in examples]
    folds = []
    for number, part in enumerate(parts, start=1):
        own = {hashes[text] for text in part}
        others = [text for text, found in enumerate(hashes) if found not in own]
        folds.append(Fold(number, sorted(part), others))
    return folds


def write_fold(fold: Fold, examples: Sequence[Example], corpus: Corpus, settings: Settings) -> Settings:
    """Write the texts of a fold as a corpus, the held-out ones as its test split, and return the settings of its run.

    Args:
        settings: those of the whole; ``output_dir`` holds the folds.
    """
    home = Path(settings.actions.output_dir)
    splits: dict[str, Iterable[Example]] = {
        "train": (examples[text] for text in fold.others),
        "test": (examples[text] for text in fold.held_out),
    }
    if corpus.has("dev"):
        splits["dev"] = corpus.examples("dev")
    of_data = settings_of_splits(home / "folds" / str(fold.number), splits, corpus.entity_types(), settings)
    return of_data.replace(output_dir=str(home / f"fold_{fold.number}"))


def settings_of_splits(
    folder: Path, splits: Mapping[str, Iterable[Example]], types: Sequence[str], settings: Settings
) -> Settings:
    """Write splits of a corpus, and return the settings of a run that reads them and does nothing yet.

    Args:
        folder: for one file per split, and the types.
        types: entity types, of which some splits may lack some.
        settings: of another corpus.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(types) + "\n", "utf-8")
    for split, texts in splits.items():
        FORMATS["jsonl"].write(texts, folder / f"{split}.jsonl")
    of_source = {"train_file": "", "dev_file": "", "test_file": "", "dataset_name": "", "word_column": ""}
    of_written = {"data_dir": str(folder), "labels": "", "tag_column": "last", "offset_unit": "auto"}
    actions = {"do_train": False, "do_eval": False, "do_predict": False, "overwrite_output_dir": False}
    of_checkpoints = {"eval_all_checkpoints": False, "predict_checkpoints": "", "resume_from_checkpoint": ""}
    return settings.replace(**of_source, **of_written, **actions, **of_checkpoints)


def trained_model(settings: Settings, head: type[Tagger], action: str) -> tuple[Run, Tagger, PreTrainedTokenizerBase]:
    """Load the model of a run onto its device; train it first unless that is done, from its last checkpoint if any.

    Args:
        settings: from `settings_of_splits`.
        action: what follows: ``do_eval`` or ``do_predict``.
    """
    if not RunFolder(Path(settings.actions.output_dir)).config.is_file():
        run = start_run(settings.replace(do_train=True, resume_from_checkpoint="auto"), head)
        train_and_save(*load_model_and_tokenizer(run, head))
    run = start_run(settings.replace(**{action: True}), head)
    run, model, tokenizer = load_model_and_tokenizer(run, head)
    return adopt_model(run, model), model, tokenizer
