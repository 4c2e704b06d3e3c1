"""Make a dictionary of entities from an annotated corpus, as a source for ``tools.combine_sources``.

python -m tools.make_gazetteer train.txt types.tsv --min_share 0.5
"""

import logging
from pathlib import Path

from common.command_line import Bounds, CommandLine
from common.log import setup_logging
from processors.corpus import Corpus
from processors.examples import DataError
from processors.text.gazetteer import make_gazetteer, write_gazetteer
from tools.script import run_script

logger = logging.getLogger("tools.make_gazetteer")  # also when it is the main module


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="annotated file, or brat folder")
    parser.add_argument("output", type=Path, help="file to write: surface, type and share, separated by tabs")
    text = "leave out a surface if fewer of its matches are entities of the type; default: 0.5"
    parser.add_argument("--min_share", type=Bounds(float, at_least=0, at_most=1), default=0.5, help=text)
    parser.add_argument("--ignore_case", action="store_true", help="count matches in upper and lower case together")
    args = parser.parse_args()
    setup_logging()
    if args.output.exists():
        raise DataError("already exists; name a new file", args.output)
    examples = list(Corpus("", split_files={"train": args.source}).examples("train"))
    every = make_gazetteer(examples, args.ignore_case)
    kept = [entry for entry in every if entry[-1] >= args.min_share]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_gazetteer(kept, args.output)
    message = "%d entries written to %s; %d with a share below %g left out"
    logger.info(message, len(kept), args.output, len(every) - len(kept), args.min_share)


if __name__ == "__main__":
    run_script(main)
