"""The model card of a run: what the Hugging Face hub shows of a model, from the files of the run."""

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.calibration import Reliability, judge, reliability
from analysis.documents import read_documents
from common.run_files import RunFolder
from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from models.tagger import casing_types
from models.word_states import WordStateOptions
from tools.settings import Settings

_SPLITS = ("dev", "test")
_SCORES = ("f1", "precision", "recall")
_PACKAGES = ("torch", "transformers", "tokenizers")
_DATA = ("dataset_name", "task_name", "data_dir", "train_file", "dev_file", "test_file")
_CACHES = ("cache_dir", "feature_cache_dir", "overwrite_cache")


def model_card(files: RunFolder, model: FlatTagger, repo_id: str, license: str, module: str) -> str:
    """Write the card as Markdown with a YAML header.

    Args:
        files: the run, whose scores, confidences, settings and command are read as far as they are there.
        license: an identifier of the hub, such as ``apache-2.0``; empty if unknown.
        module: name of the file with the code.
    """
    flags, environment = _read(files.settings), _read(files.environment)
    splits = {split: results for split in _SPLITS if (results := _read(files.results(split)))}
    lacking = _lacking_in_transformers(model)
    return _template().render(
        header=_header(repo_id, license, flags, splits),
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        license=license,
        module=module,
        head=type(model).title,
        family=model.config.model_type,
        has_context=getattr(model.config, "context_size", None) is not None,
        parameters=model.num_parameters(),
        types=model.types,
        tags=model.tag_names,
        markup=model.markup,
        unit=getattr(model.config, "word_unit", ""),
        is_plain=not lacking,
        lacking=", ".join(lacking),
        splits=splits,
        calibration={split: found for split in splits if (found := _calibration(files, split))},
        data=_data(flags),
        command=shlex.join(["python", *environment["command"]]) if environment else "",
        flags=_changed_flags(flags, type(model)),
        versions=_versions(environment),
    )


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "percent": _percent, "score": _score}
    return environment.get_template("model_card.md.jinja")


def _code(text: Any) -> str:
    """As code, also in a table."""
    return f"`{str(text).replace('|', chr(92) + '|')}`"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _score(results: Mapping[str, Any], name: str) -> str:
    """A score with its interval, if it has one."""
    interval = results.get("intervals", {}).get(name)
    return _percent(results[name]) + (f" [{', '.join(map(_percent, interval))}]" if interval else "")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _header(repo_id: str, license: str, flags: Mapping[str, Any], splits: Mapping[str, Any]) -> str:
    encoder = flags.get("model_name_or_path", "")
    dataset = flags.get("dataset_name", "").partition(":")[0]  # without its configuration
    name = dataset or flags.get("task_name") or "unknown"
    results = [
        EvalResult(
            task_type="token-classification",
            dataset_type=name,
            dataset_name=name,
            dataset_split=split,
            metric_type=score,
            metric_value=round(found[score], 4),
        )
        for split, found in splits.items()
        for score in _SCORES
    ]
    card = ModelCardData(
        license=license or None,
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "token-classification", "bert-crf"],
        base_model=encoder if _is_from_hub(encoder, "config.json", None) else None,
        datasets=[dataset] if _is_from_hub(dataset, "README.md", "dataset") else None,
        model_name=repo_id.rpartition("/")[2],
        eval_results=results,
    )
    return f"---\n{card.to_yaml()}\n---\n"


def _is_from_hub(name: str, file: str, repo_type: str | None) -> bool:
    """Whether a file of this repository of the hub is in the local cache; other names may be folders."""
    with suppress(HFValidationError):
        return isinstance(try_to_load_from_cache(name, file, repo_type=repo_type), str)
    return False


def _lacking_in_transformers(model: FlatTagger) -> list[str]:
    """Parts of the model that the token classifiers of transformers do not have."""
    options = WordStateOptions.of(model.config)
    parts = {
        "the CRF (`crf.*` are reported as unexpected weights)": isinstance(model, BertCrfForNer),
        "the search for the best legal tag sequence": isinstance(model, BertSoftmaxForNer) and model.searches,
        "the BiLSTM (`bilstm.*` are reported as unexpected weights)": options.bilstm_size > 0,
        "the mean over the pieces of a word": options.word_pooling == "mean",
        "the mean of the last layers": options.last_layers > 1,
        "the token types that mark capitals": bool(casing_types(model)),
    }
    return [part for part, is_there in parts.items() if is_there]


def _calibration(files: RunFolder, split: str) -> Reliability | None:
    """``None`` if there are no predicted entities with confidences."""
    path = files.documents(split)
    documents = read_documents(path) if path.is_file() else []
    if any(len(one.predicted) != len(one.confidences) for one in documents):
        return None
    found = reliability(judge(documents))
    return found if found.bins else None


def _data(flags: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_code(flags[name])}" for name in _DATA if flags.get(name))


def _changed_flags(flags: Mapping[str, Any], head: type[FlatTagger]) -> dict[str, Any]:
    """Flags of the training that are not at their defaults, but for the data, and what the run did and where."""
    settings = Settings.of(head.Options)
    left_out = {*vars(settings.actions), *_DATA, *_CACHES}
    defaults = {name: value for name, value in settings.flat().items() if name not in left_out}
    return {name: flags[name] for name, value in defaults.items() if flags.get(name, value) != value}


def _versions(environment: Mapping[str, Any]) -> str:
    found = environment.get("packages", {})
    named = {"Python": environment.get("python"), **{name: found.get(name) for name in _PACKAGES}}
    named["bert-crf"] = environment.get("commit")
    return ", ".join(f"{name} {version}" for name, version in named.items() if version)
