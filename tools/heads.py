"""Which head a folder holds: as its config names it, or, for old folders, as the names of its weights show."""

import json
import logging
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from transformers.models.auto import modeling_auto

from models import HEADS, BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger

logger = logging.getLogger(__name__)
_TOKEN_CLASSIFIERS = set(modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values())
_SCRIPTS = {BertSoftmaxForNer: "run_ner_softmax.py", BertCrfForNer: "run_ner_crf.py"}
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_SPAN_HEAD = "BertSpanForNer"


def head_of_folder(folder: Path) -> type[Tagger]:
    """The class of the head that a folder with a trained model holds.

    Raises:
        ValueError: the folder holds something else than a head that is known here.
    """
    path = folder / "config.json"
    try:
        architectures = json.loads(path.read_text("utf-8")).get("architectures") if path.is_file() else None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the config of a model: {error}") from error
    return head_of(architectures, folder)


def head_of(architectures: Sequence[str] | None, folder: Path) -> type[Tagger]:
    """The same for a config that has been read: ``architectures`` is its entry of that name.

    A token classifier of transformers is a softmax head. A head of the user's own is found once its module is imported.
    """
    if not architectures:
        return _head_by_weights(folder)
    name = architectures[0]
    if name in _TOKEN_CLASSIFIERS:
        return BertSoftmaxForNer
    known = {head.__name__: head for head in _subclasses(Tagger)} | HEADS
    if name in known:
        return known[name]
    if name.endswith("ForSequenceClassification"):
        raise ValueError(f"{folder} holds a classifier of texts ({name}), not a tagger; use run_pl_glue.py")
    if name == _SPAN_HEAD:
        raise ValueError(f"{folder} holds the span head of BERT-NER-Pytorch ({name}), which is not supported")
    if is_encoder(architectures, folder):
        raise ValueError(f"{folder} holds an encoder without a head ({name}); train it with --do_train")
    advice = "if it is your own subclass of models.tagger.Tagger, import its module first, or use its own script"
    expected = f"{', '.join(HEADS)} or a token classifier of transformers"
    raise ValueError(f"{folder} holds the head {name}; expected {expected}; {advice}")


def check_head(folder: Path, head: type[Tagger]) -> None:
    """Raises a ValueError where a folder with a trained model does not hold this head."""
    found = head_of_folder(folder)
    if found is not head:
        advice = f"; use {_SCRIPTS[found]}" if found in _SCRIPTS else ""
        raise ValueError(f"{folder} holds the head {found.__name__}, not {head.__name__}{advice}")


def script_of(head: type[Tagger]) -> str:
    """The script that trains a head; that of the user's own heads is not known."""
    return _SCRIPTS.get(head, "your_script.py")


def is_encoder(architectures: Sequence[str] | None, folder: Path) -> bool:
    """Whether a config is that of a pretrained encoder, with or without the head of its pretraining."""
    if not architectures:
        return "classifier.weight" not in weight_shapes(folder)
    encoders: set[str] = set()
    for mapping in ("MODEL_MAPPING_NAMES", "MODEL_FOR_PRETRAINING_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"):
        for names in getattr(modeling_auto, mapping).values():
            encoders.update([names] if isinstance(names, str) else names)
    return set(architectures) <= encoders


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in a folder; none where it has no file of weights.

    Raises:
        ValueError: such a file cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            else:
                weights = torch.load(path, map_location="meta", weights_only=True)
                shapes |= {name: tuple(getattr(weight, "shape", ())) for name, weight in weights.items()}
        except (SafetensorError, UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
            raise ValueError(f"{path} is not a file of weights: {error}") from error
    return shapes


def missing_folder(name: str) -> str:
    """Says that a folder does not exist, and which similar ones do."""
    path = Path(name).expanduser().absolute()
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    similar = get_close_matches(missing.name, [one.name for one in missing.parent.iterdir() if one.is_dir()])
    hint = f"; similar: {', '.join(str(missing.parent / one) for one in similar)}" if similar else ""
    return f"there is no folder {path}{hint}"


def _subclasses(head: type[Tagger]) -> Iterator[type[Tagger]]:
    for subclass in head.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _weight_files(folder: Path) -> list[Path]:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return sorted({folder / file for file in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    return []


def _head_by_weights(folder: Path) -> type[Tagger]:
    parts = {name.partition(".")[0] for name in weight_shapes(folder)}
    if len(parts - {"classifier", "crf"}) != 1 or "classifier" not in parts:
        found = f"its weights are those of {', '.join(sorted(parts))}" if parts else "it has no weights"
        raise ValueError(f"{folder}/config.json does not name the head (architectures), and {found}: cannot tell it")
    head = BertCrfForNer if "crf" in parts else BertSoftmaxForNer
    logger.info("%s/config.json does not name the head; its weights are those of %s", folder, head.__name__)
    return head
