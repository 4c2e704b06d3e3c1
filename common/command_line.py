"""Command lines and config files: numeric bounds, suggestions for unknown names, all errors reported together."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from math import inf, nan
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

# Names that other programs use for our settings, one setting per line; used to suggest ours for an unknown name.
_SYNONYMS = (
    "train_max_seq_length max_seq_length max_length max_seq_len max_len model_max_length block_size",
    "eval_max_seq_length max_seq_length",
    "per_gpu_train_batch_size train_batch_size per_device_train_batch_size batch_size mini_batch_size",
    "per_gpu_eval_batch_size eval_batch_size per_device_eval_batch_size test_batch_size dev_batch_size",
    "num_train_epochs epochs num_epochs max_epochs n_epochs",
    "learning_rate lr encoder_learning_rate bert_learning_rate encoder_lr",
    "crf_learning_rate crf_lr",
    "head_learning_rate classifier_learning_rate decoder_lr head_lr linear_learning_rate",
    "warmup_proportion warmup_ratio",
    "gradient_accumulation_steps accumulate_grad_batches",
    "max_grad_norm gradient_clip_val clip_grad gradient_clip",
    "lr_scheduler_type lr_scheduler scheduler schedule",
    "optim optimizer",
    "num_workers dataloader_num_workers",
    "dev_file validation_file eval_file valid_file",
    "test_file predict_file",
    "model_name_or_path model model_name bert_model pretrained_model encoder",
    "data_dir data dataset_dir corpus_dir",
    "output_dir output save_dir out_dir",
    "dataset_name dataset dataset_config_name",
    "tag_column label_column_name label_column",
    "labels label_file labels_file",
    "task_name task",
    "do_predict do_test",
    "logging_steps eval_steps eval_strategy evaluation_strategy evaluate_every",
    "log_loss_steps log_every_n_steps",
    "save_steps save_strategy checkpoint_every",
    "evaluate_during_training load_best_model_at_end",
    "metric_for_best_model monitor",
    "early_stopping_patience patience",
    "resume_from_checkpoint resume",
    "report_to logger",
    "no_cuda use_cpu cpu",
    "torch_compile compile",
    "loss label_smoothing_factor",
    "batch_tokens batch_size",
)


@dataclass(frozen=True)
class Bounds:
    """The range of a number. Used as the ``type`` of an argparse option, it parses and checks the text.

    NaN, infinity, and numbers beyond 32 bits are out of bounds; ``at_most`` can allow the latter.

    Args:
        kind: int or float.
        also: a special value that is allowed although it is out of bounds.
    """

    kind: type[int] | type[float]
    at_least: float = -inf
    above: float = -inf
    at_most: float = 2**31 - 1
    below: float = inf
    also: float | None = None

    def __contains__(self, value: float) -> bool:
        inside = self.at_least <= value <= self.at_most and self.above < value < self.below
        return inside or value == self.also

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            value = nan
        if value not in self:
            raise argparse.ArgumentTypeError(f"must be {self}")
        return value

    def __str__(self) -> str:
        number = "a whole number" if self.kind is int else "a number"
        lower = f"at least {self.at_least}" if self.above == -inf else f"greater than {self.above}"
        upper = f"at most {self.at_most}" if self.below == inf else f"less than {self.below}"
        return f"{number}, {lower} and {upper}" + ("" if self.also is None else f", or {self.also}")


class CommandLine(argparse.ArgumentParser):
    """An argument parser that reports all errors together, each with flag, value and fix, without the usage text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)
        self.faults: list[str] = []
        self._places: Mapping[str, str] = {}

    def collect(
        self, words: Sequence[str], namespace: argparse.Namespace, places: Mapping[str, str] | None = None
    ) -> argparse.Namespace:
        """Parse words into the namespace and append errors to ``faults``.

        Args:
            places: message prefix with the location of each flag; empty for the command line itself.
        """
        self._places = places or {}
        known = {name for action in self._actions for name in action.option_strings}
        flags = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", words)]
        named = [flag for flag in flags if flag.startswith("--") and " " not in flag]  # a word with a space is a value
        unknown = [flag for flag in named if flag not in known]
        for flag in dict.fromkeys(unknown):
            self._add_fault(flag, f"unrecognized {flag}{_suggestion(flag, known)}")
        _, rest = super().parse_known_args(words, namespace)
        if rest and not unknown:  # otherwise the rest may be values of unknown flags
            self.faults.append(f"unrecognized {' '.join(rest)}")
        return namespace

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found = self.collect(sys.argv[1:] if args is None else args, namespace or argparse.Namespace())
        if self.faults:
            self.error()
        return found, []

    def error(self, message: str = "") -> NoReturn:
        faults = [*self.faults, *filter(None, [message])]
        text = faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults", *faults])
        self.exit(2, f"{self.prog}: error: {text}\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            name = action.option_strings[0] if action.option_strings else action.dest
            self._add_fault(name, f"{name} {' '.join(arg_strings)}: {error.message}")
            return action.default

    def _add_fault(self, flag: str, fault: str) -> None:
        self.faults.append(self._places.get(flag, "") + fault)


def _suggestion(flag: str, known: Iterable[str]) -> str:
    name, names = flag.removeprefix("--").replace("-", "_"), [flag.removeprefix("--") for flag in known]
    groups = [group.split() for group in _SYNONYMS if name in group.split()]
    alike = [one for group in groups for one in group if one in names] or get_close_matches(name, names, 1, 0.7)
    return f": did you mean --{alike[0]}?" if alike else "; see --help"


_ADVICE = "expected names with values, as in 'learning_rate: 3e-5'"


class Entry(NamedTuple):
    """A setting in a config file: its location (``file:line: ``), name, and value as text."""

    place: str
    name: str
    value: str


class YamlLoader(yaml.SafeLoader):
    """A YAML loader that reads 1e-5 as a number, as JSON does, and rejects duplicate names in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _refuse_duplicates(node)
        return super().construct_mapping(node, deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?\d+(\.\d*)?[eE][-+]?\d+$"), list("-0123456789")
)


def read_config_file(path: Path) -> tuple[list[Entry], list[str]]:
    """Read settings from a YAML or JSON file.

    Returns:
        The entries that have a value, and error messages for invalid ones. Values are taken as written, so ``1:30``
        and ``yes`` stay text; a mapping for an option whose name ends in ``_kwargs`` becomes JSON.

    Raises:
        ValueError: the file is not a mapping of names to values.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such config file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if path.suffix == ".json":  # YAML allows no tabs for indentation
            text = text.expandtabs()
        loader = YamlLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(_ADVICE if text.strip() else f"the file is empty; {_ADVICE}")
        _refuse_duplicates(node)
        entries, faults = list[Entry](), list[str]()
        for key, value in node.value:
            place = f"{path}:{key.start_mark.line + 1}: "
            name = loader.construct_object(key, deep=True)
            as_written = isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null")
            found = value.value if as_written else loader.construct_object(value, deep=True)
            if not isinstance(name, str):
                faults.append(f"{place}the name {name!r} is not text; {_ADVICE}")
            elif isinstance(found, dict) and name.endswith("_kwargs"):
                entries.append(Entry(place, name, json.dumps(found)))
            elif isinstance(found, dict | list):
                faults.append(
                    f"{place}--{name}: the value is a {'mapping' if isinstance(found, dict) else 'list'}; {_ADVICE}"
                )
            elif found is not None:
                joined = found.encode("utf-16", "surrogatepass").decode("utf-16")  # joins escaped surrogate pairs
                entries.append(Entry(place, name, joined))
        return entries, faults
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise ValueError(f"{path}:{line}: byte {byte:#x} is not UTF-8; save the file as UTF-8") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; {_ADVICE}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: neither YAML nor JSON: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    lines: dict[str, list[str]] = {}
    for key, _ in node.value:
        lines.setdefault(str(key.value), []).append(str(key.start_mark.line + 1))
    twice = [f"{name} (lines {', '.join(found)})" for name, found in lines.items() if len(found) > 1]
    if twice:
        raise ValueError(f"given more than once: {', '.join(twice)}")
