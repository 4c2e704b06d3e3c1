"""Settings as frozen dataclasses whose fields carry help and bounds, and command lines built from them."""

import argparse
import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from transformers.hf_argparser import string_to_bool

from common.command_line import Bounds, CommandLine


def option(
    default: Any,
    help: str,
    choices: Sequence[str] = (),
    *,
    common: bool = False,
    needs: Mapping[str, Sequence[Any]] | None = None,
    nargs: str | None = None,
    const: Any = None,
    kind: type[int] | type[float] | None = None,
    aliases: Sequence[str] = (),
    **bounds: Any,
) -> Any:
    """Define a field of a settings dataclass, which becomes a flag of the same name.

    Args:
        default: default value; its type (bool, int, float or str) is the type of the flag.
        help: one line.
        choices: allowed values.
        common: whether ``--help`` shows it; ``--help_all`` shows all.
        needs: other options with their required values, or none if all but the default will do; if one has another
            value, this option has no effect and changing it is an error.
        nargs, const: as for `argparse.ArgumentParser.add_argument`; the values of ``+`` are joined by commas.
        kind: type of the number if ``default`` is None.
        aliases: other names of the flag.
        **bounds: see `common.command_line.Bounds`.
    """
    if kind is None and type(default) in (int, float):
        kind = type(default)
    metadata = {"help": help, "choices": list(choices), "common": common, "needs": dict(needs or {})}
    metadata |= {"nargs": nargs, "const": const, "bounds": Bounds(kind, **bounds) if kind else None}
    metadata["aliases"] = tuple(aliases)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NoOptions:
    """Empty settings, for components without options."""


def faults_of(settings: Iterable[Any]) -> Iterator[str]:
    """Yield an error message for each value that is out of bounds, not a choice, or without effect.

    Args:
        settings: instances of dataclasses with `option` fields; an option may need one of another dataclass.
    """
    settings = list(settings)
    values = {one.name: getattr(part, one.name) for part in settings for one in fields(part)}
    options = [one for part in settings for one in fields(part)]
    for one in options:
        value, bounds, choices = values[one.name], one.metadata["bounds"], one.metadata["choices"]
        if bounds and value is not None and value not in bounds:
            yield f"--{one.name} {value}: must be {bounds}"
        if choices and value not in choices:
            yield f"--{one.name} {value} is none of {', '.join(filter(None, choices))}"
    defaults = {one.name: one.default for one in options}
    for one in options:
        for other, allowed in one.metadata["needs"].items():
            value = values[one.name]
            if other not in values or value == one.default:
                continue
            if not (values[other] in allowed if allowed else values[other] != defaults[other]):
                shown = " or ".join(map(str, allowed))
                yield f"--{one.name} {value} has no effect " + (
                    f"with --{other}" if allowed and not shown else f"without --{other} {shown}".rstrip()
                )


class _Switch(argparse.Action):
    """A boolean flag: ``--name``, ``--name VALUE``, and ``--no_name`` if it is on by default."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", const=True, type=string_to_bool, **options)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        is_off = self.default is True and str(option_string)[2:5] in ("no_", "no-")
        setattr(namespace, self.dest, not values if is_off else values)


class _Joined(argparse.Action):
    """A flag with one or more values, stored as one text with commas."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        setattr(namespace, self.dest, ",".join(values))


class _HelpFormatter(argparse.HelpFormatter):
    """A help formatter that leaves out some flags and shows one spelling of the others."""

    def __init__(self, prog: str, left_out: Collection[argparse.Action]) -> None:
        super().__init__(prog, max_help_position=40, width=120)
        self._left_out = left_out

    def add_argument(self, action: argparse.Action) -> None:
        if action not in self._left_out:
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        if isinstance(action, _Switch):
            return f"--[no_]{action.dest}" if action.default is True else f"--{action.dest}"
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}".strip()


class OptionsCommandLine(CommandLine):
    """A command line built from dataclasses with `option` fields; ``--help`` shows only the common ones."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(
            description=description,
            usage="%(prog)s --flag VALUE ...",
            formatter_class=lambda prog: _HelpFormatter(prog, self.rare),
            add_help=False,
            **options,
        )
        self.rare: list[argparse.Action] = []
        about = self.add_argument_group("help")
        about.add_argument("-h", "--help", action="help", help="show the common flags")
        about.add_argument(
            "--help_all", "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all flags"
        )

    def add_options(
        self,
        kind: type,
        title: str,
        *,
        aliases: Mapping[str, Sequence[str]] | None = None,
        defaults: Mapping[str, Any] | None = None,
        leave_out: Collection[str] = (),
        hidden: bool = False,
        common: bool = False,
    ) -> None:
        """Add a flag for each field of a dataclass.

        Args:
            title: heading of the group in the help.
            aliases: other names of fields; the help shows the first one.
            defaults: overrides of the defaults of the fields.
            leave_out: fields without a flag.
            hidden: hide the flags from all help.
            common: show the flags in ``--help``.
        """
        group = self.add_argument_group(title)
        for one in fields(kind):
            if one.name not in leave_out:
                default = (defaults or {}).get(one.name, one.default)
                self._add_option(group, one, default, (aliases or {}).get(one.name, ()), hidden, common)

    def _add_option(
        self, group: Any, one: "Field[Any]", default: Any, aliases: Sequence[str], hidden: bool, common: bool
    ) -> argparse.Action:
        metadata, names = one.metadata, [*aliases, one.name, *one.metadata["aliases"]]
        options: dict[str, Any] = {"dest": one.name, "default": default}
        options["help"] = argparse.SUPPRESS if hidden else _described(metadata["help"], default)
        if isinstance(default, bool):
            options["action"] = _Switch
            names += [f"no_{name}" for name in names] if default else []
        else:
            options |= {"choices": metadata["choices"] or None, "type": metadata["bounds"] or str}
            choices = ",".join(filter(None, metadata["choices"]))
            options["metavar"] = f"{{{choices}}}" if choices else one.name.rpartition("_")[2].upper()
            options |= {name: metadata[name] for name in ("nargs", "const") if metadata[name] is not None}
            options |= {"action": _Joined} if metadata["nargs"] == "+" else {}
        spellings = [f"--{spelling}" for name in names for spelling in (name, name.replace("_", "-"))]
        action: argparse.Action = group.add_argument(*dict.fromkeys(spellings), **options)
        if not (common or metadata["common"]):
            self.rare.append(action)
        return action


class _HelpAll(argparse.Action):
    """Prints the help of all flags and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        assert isinstance(parser, OptionsCommandLine)
        parser.rare.clear()
        parser.print_help()
        parser.exit()


def _described(text: str, default: Any) -> str:
    shown = "" if default in ("", None) or isinstance(default, bool) else f" (default: {default})"
    return (text + shown).replace("%", "%%")


def imported(name: str, flag: str) -> Any:
    """Import an object.

    Args:
        name: ``module:object``.
        flag: flag to name in error messages.

    Raises:
        ValueError: the module or object does not exist.
    """
    module_name, _, object_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), object_name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "write module:name; the module must be next to the script or on PYTHONPATH"
        raise ValueError(f"{flag} {name}: {error}; {advice}") from error
