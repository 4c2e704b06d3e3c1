"""What a folder with a model holds: its head, its labels and its weights."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from models import HEADS, BertCrfForNer, BertSoftmaxForNer, BertSpanForNer, head_named
from models.tagger import Tagger, set_label_names
from processors.tasks import NUMBERED_TAGS, NUMBERED_TYPES

logger = logging.getLogger(__name__)
_TOKEN_CLASSIFIERS = set(modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values())
_BUILT_IN = {head.__name__: head for head in HEADS.values()}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_OUTPUT_LAYERS = ("classifier.weight", "start_fc.dense.weight")  # one row per label
_NO_NAMES = "LABEL_"
_SHOWN = 10


def head_of_folder(folder: Path, named: str | type[Tagger] = "") -> type[Tagger]:
    """Find the head class of a trained model.

    Args:
        named: the head, if it is not built in: ``module:Class``, or the class. No other module is imported, whatever
            the folder says.

    Raises:
        ValueError: the folder does not hold a known head, or not the named one.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        architectures, source = config.get("architectures"), config.get("head_source")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the config of a model: {error}") from error
    return head_of(architectures, folder, source, named)


def head_of(
    architectures: Sequence[str] | None, folder: Path, source: str | None = None, named: str | type[Tagger] = ""
) -> type[Tagger]:
    """Find the head class from config entries.

    A token classifier of transformers counts as a softmax head. A custom head is known once its class is imported.

    Args:
        architectures, source: entries ``architectures`` and ``head_source`` of the config.
        named: see `head_of_folder`.

    Raises:
        ValueError: the head is unknown, or not the named one.
    """
    wanted = head_named(named) if named and isinstance(named, str) else named or None  # imports the module first
    found = _head_of(architectures, folder, source)
    if wanted and found is not wanted:
        own = name_of(found)
        own = "" if found.script == f"run_ner_{own}.py" else f" --head {own}"
        raise ValueError(f"{folder} holds the head {found.__name__}, not {wanted.__name__}; use {found.script}{own}")
    return found


def _head_of(architectures: Sequence[str] | None, folder: Path, source: str | None) -> type[Tagger]:
    if not architectures:
        return _head_by_weights(folder)
    name = architectures[0]
    if name in _TOKEN_CLASSIFIERS:
        return BertSoftmaxForNer
    known = {head.__name__: head for head in _subclasses(Tagger) if head.losses is not Tagger.losses} | _BUILT_IN
    if name in known:
        return known[name]
    if name.endswith("ForSequenceClassification"):
        raise ValueError(f"{folder} holds a text classifier ({name}), not a tagger; use run_pl_glue.py")
    if is_encoder(architectures, folder):
        raise ValueError(f"{folder} holds an encoder without a head ({name}); train it with --do_train")
    hint = source if source and source.endswith(f":{name}") else f"module:{name}"
    advice = f"if you trust its code, name it with --head {hint} (in Python: NerPredictor.load(folder, head=...))"
    raise ValueError(f"{folder} holds the head {name}, which is not built in ({', '.join(_BUILT_IN)}); {advice}")


def warn_of_lost_crf(config: PreTrainedConfig, source: str) -> None:
    """Warn if a CRF was loaded as an ordinary token classifier, which transformers allows, and saved as one."""
    name = (config.architectures or [""])[0]
    if name in _TOKEN_CLASSIFIERS and hasattr(config, "crf_legal"):
        message = "%s was a CRF and was saved as %s, without its transitions: unless it was trained again, its tags"
        logger.warning(f"{message} are worse than those of the original folder", source, name)


def name_of(head: type[Tagger]) -> str:
    """What ``--head`` calls a head: its name in ``HEADS``, or ``module:Class``."""
    return next((name for name, one in HEADS.items() if one is head), f"{head.__module__}:{head.__name__}")


def head_options(head: type[Tagger], **asked: Any) -> Any:
    """The options of a head, those not asked for with their defaults.

    Raises:
        ValueError: the head has no such option.
    """
    if unknown := asked.keys() - {one.name for one in fields(head.Options)}:
        flags = ", ".join(f"--{name} {asked[name]}" for name in sorted(unknown))
        having = [name for name, one in HEADS.items() if unknown <= {option.name for option in fields(one.Options)}]
        raise ValueError(f"{flags}: {head.__name__} has no such option; it is one of the head {' or '.join(having)}")
    return head.Options(**asked)


def is_built_in(head: type[Tagger] | str) -> bool:
    """Whether a class or class name is a head of this project."""
    return head in _BUILT_IN or head in HEADS.values()


def is_encoder(architectures: Sequence[str] | None, folder: Path) -> bool:
    """Whether a config describes a pretrained encoder, with or without its pretraining head."""
    if not architectures:
        return weight_shapes(folder).keys().isdisjoint(_OUTPUT_LAYERS)
    encoders: set[str] = set()
    for mapping in ("MODEL_MAPPING_NAMES", "MODEL_FOR_PRETRAINING_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"):
        for names in getattr(modeling_auto, mapping).values():
            encoders.update([names] if isinstance(names, str) else names)
    return set(architectures) <= encoders


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of the weights in a folder; empty if it has no weight file.

    Raises:
        ValueError: a weight file cannot be read.
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
            raise ValueError(f"{path} is not a weight file: {error}") from error
    return shapes


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights, in one file or several."""
    return _weight_file(folder) is not None


def check_has_model(folder: str | Path, advice: str) -> None:
    """Raise a ValueError that ends with the advice if a folder holds no trained model."""
    if not has_weights(Path(folder)):
        there = f"{folder} holds no trained model" if Path(folder).is_dir() else missing_folder(str(folder))
        raise ValueError(f"{there}; {advice}")


def missing_folder(name: str) -> str:
    """Message that a folder does not exist, with similar names as hints."""
    path = Path(name).expanduser().absolute()
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    similar = get_close_matches(missing.name, [one.name for one in missing.parent.iterdir() if one.is_dir()])
    hint = f"; similar: {', '.join(str(missing.parent / one) for one in similar)}" if similar else ""
    return f"no such folder: {path}{hint}"


def _subclasses(head: type[Tagger]) -> Iterator[type[Tagger]]:
    for subclass in head.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _weight_file(folder: Path) -> Path | None:
    """The file of the weights, or the index of several."""
    paths = (folder / f"{name}{suffix}" for name in WEIGHT_FILES for suffix in ("", ".index.json"))
    return next((path for path in paths if path.is_file()), None)


def _weight_files(folder: Path) -> list[Path]:
    file = _weight_file(folder)
    if file is None or file.suffix != ".json":
        return [file] if file else []
    return sorted({folder / name for name in json.loads(file.read_text("utf-8"))["weight_map"].values()})


def _head_by_weights(folder: Path) -> type[Tagger]:
    parts = {name.partition(".")[0] for name in weight_shapes(folder)}
    heads = {
        frozenset({"classifier"}): BertSoftmaxForNer,
        frozenset({"classifier", "crf"}): BertCrfForNer,
        frozenset({"start_fc", "end_fc"}): BertSpanForNer,
    }
    own = frozenset(parts & {"classifier", "crf", "start_fc", "end_fc"})
    if len(parts - own) != 1 or own not in heads:
        found = f"its weights are {', '.join(sorted(parts))}" if parts else "it has no weights"
        raise ValueError(f"{folder}/config.json does not name the head (architectures), and {found}")
    head = heads[own]
    logger.info("%s/config.json does not name the head; using %s, judging by the weights", folder, head.__name__)
    return head


def label_names(config: PreTrainedConfig) -> list[str]:
    """Label names of a config by id; empty if the labels are only numbered (``LABEL_0``)."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return [] if all(name.startswith(_NO_NAMES) for name in names) else names


def name_labels(head: type[Tagger], config: PreTrainedConfig, source: str, task_name: str) -> None:
    """Set the label names of a BERT-NER-Pytorch model, whose config only numbers them.

    Raises:
        ValueError: the labels have no names, and their number is not that of the task in BERT-NER-Pytorch.
    """
    numbered = NUMBERED_TYPES if head is BertSpanForNer else NUMBERED_TAGS
    if not label_names(config):
        shapes = weight_shapes(Path(source))
        counts = [shapes[name][0] for name in _OUTPUT_LAYERS if name in shapes]
        count = counts[0] if counts else len(config.id2label or {})
        task = (task_name or getattr(config, "finetuning_task", None) or "").lower()
        is_of_that_project = not config.architectures or is_built_in(config.architectures[0])
        fitting = [known for known, tags in numbered.items() if len(tags) == count and is_of_that_project]
        if not fitting or (task in numbered and task not in fitting):
            wanted = f", which are not the {len(numbered[task])} of {task}" if task in numbered else ""
            raise ValueError(f"{source}/config.json does not name its {count} labels in id2label{wanted}; add them")
        set_label_names(config, numbered[fitting[0]])
        message = "%s/config.json does not name its %d labels: using those of BERT-NER-Pytorch for %s: %s"
        logger.warning(message, source, count, fitting[0], ", ".join(label_names(config)))
    if tuple(label_names(config)) in numbered.values() and getattr(config, "word_unit", None) is None:
        config.word_unit = "char"  # as BERT-NER-Pytorch reads both corpora


def labels_of(head: type[Tagger], config: PreTrainedConfig, source: str) -> list[str]:
    """Labels by id, in the head's canonical form; empty for labels without a meaning, such as ``X``.

    Raises:
        ValueError: names the labels that cannot be parsed, and the file.
    """
    names = label_names(config)
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{source}/config.json, id2label: several labels are named {', '.join(repeated)}")
    try:
        return head.read_labels(names)
    except ValueError as error:
        raise ValueError(f"{source}/config.json, id2label: {error}") from error


def use_labels(model: Tagger, labels: Sequence[str], wanted: Sequence[str]) -> None:
    """Reduce a model to the wanted labels, in the given order.

    Args:
        labels: labels of the model, from `labels_of`.
        wanted: some or all of them.
    """
    if model.label_names != list(wanted):
        model.select_labels([list(labels).index(label) for label in wanted], wanted)


def difference(former: Iterable[str], now: Iterable[str]) -> str:
    """Describe the difference between two lists of labels, for a message."""
    former, now = {tag for tag in former if tag}, set(now)
    parts = {"new": sorted(now - former), "gone": sorted(former - now)}
    return "; ".join(f"{what}: {shortened(tags)}" for what, tags in parts.items() if tags)


def shortened(names: Sequence[str]) -> str:
    """Join the first names of a list, and say how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_model(
    model_class: Any, source: str | Path, config: PreTrainedConfig, new_head: bool = False, cache_dir: str | None = None
) -> Any:
    """Load a model in float32.

    Args:
        model_class: a class, or auto class, with ``from_pretrained``.
        source: a folder, or a name on the Hugging Face hub.
        new_head: whether weights outside the encoder may be missing or have another shape; these are then random, and
            unexpected weights are ignored.
        cache_dir: folder for downloads.

    Raises:
        ValueError: the weights cannot be read, or lists those that are missing, unexpected or have another shape.
    """
    try:
        model, report = model_class.from_pretrained(
            source,
            config=config,
            cache_dir=cache_dir,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # reported below, together with the missing ones
            output_loading_info=True,
        )
    except (RuntimeError, SafetensorError, UnpicklingError, EOFError) as error:
        raise ValueError(f"the weights of {source} cannot be read: {error}") from error
    encoder = f"{model.base_model_prefix}."

    def may_be_new(name: str) -> bool:
        return new_head and (not name.startswith(encoder) or ".pooler." in name)

    faults = {
        "missing": [name for name in sorted(report["missing_keys"]) if not may_be_new(name)],
        "unexpected": [] if new_head else sorted(report["unexpected_keys"]),
        "of another shape": [
            f"{name} is {tuple(found)}, not {tuple(expected)}"
            for name, found, expected in sorted(report["mismatched_keys"])
            if not may_be_new(name)
        ],
    }
    if any(faults.values()):
        described = "; ".join(f"{kind}: {shortened(names)}" for kind, names in faults.items() if names)
        raise ValueError(f"the weights of {source} do not fit {type(model).__name__} with its config ({described})")
    return model


def restore_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the weights of a folder that holds the same model into ``model``, on its device.

    Raises:
        ValueError: see `read_model`.
    """
    model.load_state_dict(read_model(type(model), folder, model.config).state_dict())
