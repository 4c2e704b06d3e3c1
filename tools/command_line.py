"""The command line of a run: all settings as flags, a config file, and ``--head`` with the options of that head."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.command_line import read_config_file
from common.options import NoOptions, OptionsCommandLine, faults_of
from models import HEADS, head_named
from models.tagger import Tagger
from tools.settings import Settings


def parse_settings(
    head: type = NoOptions, description: str | None = None, argv: Sequence[str] | None = None
) -> Settings:
    """Reads the command line, and the config file that it names; prints what is wrong and ends the program.

    Args:
        head: the class of the head's options. Options of other heads are accepted with their default value, so that
            the config file of one head's run works for another's.
    """
    return parse_flags(Settings(head=head()), description, argv)[0]


def parse_flags(
    blank: Settings,
    description: str | None = None,
    argv: Sequence[str] | None = None,
    more: Sequence[type] = (),
    aliases: Mapping[str, Sequence[str]] | None = None,
    refused: Mapping[str, str] | None = None,
) -> tuple[Settings, list[Any]]:
    """The same for a script with defaults, names and flags of its own.

    Args:
        blank: its values are the defaults.
        more: dataclasses of further flags.
        aliases: further names of flags.
        refused: for each flag that the script cannot honour, the reason; its default value is accepted.

    Returns:
        The settings, and an instance of each of ``more``.
    """
    argv, refused = list(sys.argv[1:] if argv is None else argv), refused or {}
    parser = OptionsCommandLine(description)
    for kind in more:
        parser.add_options(kind, "script")
    for subject, part in vars(blank).items():
        if subject == "head":
            add_head_flags(parser, type(part))
        else:
            parser.add_options(type(part), subject, aliases=aliases, defaults=vars(part), leave_out=refused)
            parser.add_options(type(part), "refused", leave_out=vars(part).keys() - refused.keys(), hidden=True)
    namespace = argparse.Namespace()
    try:
        if config_file := flag_value(argv, "config_file"):
            entries, parser.faults = read_config_file(Path(config_file))
            places = {f"--{entry.name}": entry.place for entry in entries}
            parser.collect([f"--{entry.name}={entry.value}" for entry in entries], namespace, places)
        text = "YAML or JSON file with any of these flags; flags on the command line override it"
        parser.add_argument("--config_file", "--config-file", metavar="FILE", help=text)
        flags = without_other_heads(type(blank.head), vars(parser.parse_args(argv, namespace)))
        del flags["config_file"]
        others = [kind(**{one.name: flags.pop(one.name) for one in fields(kind)}) for kind in more]
        defaults = {name: value for part in vars(blank).values() for name, value in vars(part).items()}
        faults = [f"--{name} {flags[name]}: {why}" for name, why in refused.items() if flags[name] != defaults[name]]
        if faults := [*faults, *faults_of(others)]:
            raise ValueError("; ".join(faults))
        return blank.replace(**flags), others
    except ValueError as error:
        parser.error(str(error))


def chosen_head(default: type[Tagger], argv: Sequence[str] | None = None) -> type[Tagger]:
    """The head that ``--head`` names, on the command line or in the config file; without it that of the script.

    It must be known before all other flags are read, since its options are flags. Ends the program with a message where
    there is no such head.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        name, config_file = flag_value(argv, "head"), flag_value(argv, "config_file")
        if not name and config_file:
            name = next((entry.value for entry in read_config_file(Path(config_file))[0] if entry.name == "head"), "")
        return head_named(name) if name else default
    except ValueError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def flag_value(argv: Sequence[str], name: str) -> str:
    """The value of a flag, empty where it is not given."""
    found = ""
    for token, following in pairwise([*argv, ""]):
        flag, equals, value = token.partition("=")
        if flag in (f"--{name}", f"--{name.replace('_', '-')}"):
            found = value if equals else following
    return found


def add_head_flags(parser: OptionsCommandLine, options: type) -> None:
    """Adds a head's options, and hidden flags for those of other heads.

    Args:
        options: the class of the head's options.
    """
    parser.add_options(options, "head", common=True)
    known = {one.name for one in fields(options)}
    for head in HEADS.values():
        parser.add_options(head.Options, "other heads", leave_out=known, hidden=True)
        known |= {one.name for one in fields(head.Options)}


def without_other_heads(options: type, flags: dict[str, Any]) -> dict[str, Any]:
    """The flags without those of other heads.

    Those are taken with their default values, so that the config file of a run serves for another head too.

    Raises:
        ValueError: one of them has another value.
    """
    own, kept = {one.name for one in fields(options)}, dict(flags)
    for name, head in HEADS.items():
        for one in fields(head.Options):
            if one.name not in own and kept.pop(one.name, one.default) != one.default:
                message = f"--{one.name} {flags[one.name]} has no effect: it is an option of --head {name}"
                raise ValueError(f"{message}, and this head has none of that kind; leave it out")
    return kept
