"""The flags of heads: ``--head``, the options of the head that it names, and those of others, which are refused."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.command_line import read_config_file
from common.options import OptionsCommandLine
from models import HEADS, head_named
from models.tagger import Tagger


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
