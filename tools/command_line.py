"""Command line of a run: all settings as flags, a config file, and ``--head`` with the options of that head."""

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
    """Parse the command line and the config file that it names. Prints errors and exits.

    Args:
        head: class of the head's options. Options of other heads are accepted if they have their default value, so that
            a config file can be reused with another head.
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
    """Parse the command line of a script that has its own defaults, aliases and flags. Prints errors and exits.

    Args:
        blank: settings with the default values.
        more: dataclasses of additional flags.
        aliases: alternative names, by flag.
        refused: reason, by flag that the script does not support; only the default value of such a flag is accepted.

    Returns:
        The settings, and an instance of each of ``more``.
    """
    argv, refused = list(sys.argv[1:] if argv is None else argv), refused or {}
    parser = OptionsCommandLine(description)
    for kind in more:
        parser.add_options(kind, "script")
    for subject, part in vars(blank).items():
        if subject == "head":
            parser.add_options(type(part), subject, common=True)
            known = {one.name for one in fields(part)}
            for head in HEADS.values():
                parser.add_options(head.Options, "other heads", leave_out=known, hidden=True)
                known |= {one.name for one in fields(head.Options)}
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
    """Find the head that ``--head`` names on the command line or in the config file, or else the default.

    The head must be known before the other flags are parsed, since its options are flags. Exits with a message if
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
    """Value of a flag, or an empty string if it is not given."""
    found = ""
    for token, following in pairwise([*argv, ""]):
        flag, equals, value = token.partition("=")
        if flag in (f"--{name}", f"--{name.replace('_', '-')}"):
            found = value if equals else following
    return found


def without_other_heads(options: type, flags: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of other heads.

    Args:
        options: class of the head's options.
        flags: values by flag name.

    Raises:
        ValueError: an option of another head differs from its default.
    """
    own, kept = {one.name for one in fields(options)}, dict(flags)
    for name, head in HEADS.items():
        for one in fields(head.Options):
            if one.name not in own and kept.pop(one.name, one.default) != one.default:
                message = f"--{one.name} {flags[one.name]} has no effect: it is an option of --head {name}"
                raise ValueError(f"{message}, which is not used here; remove it")
    return kept
