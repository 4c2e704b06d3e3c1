"""The command line of the report."""

import sys
from pathlib import Path

from analysis.report.page import write_report
from common.command_line import CommandLine


def main() -> None:
    parser = CommandLine(
        prog="python -m analysis.report",
        description="Write one HTML file with the scores, curves, errors and sentences of a run.",
    )
    parser.add_argument("run", type=Path, help="output_dir of a training run")
    parser.add_argument("--output", type=Path, help="file to write; default: report.html in that folder")
    parser.add_argument("--head", default="", help="head of the run if it is your own, as module:Class")
    arguments = parser.parse_args()
    try:
        path = write_report(arguments.run, arguments.output, arguments.head)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
