"""The command line of the report."""

import sys
from pathlib import Path

from analysis.report.page import write_report
from common.command_line import CommandLine


def main() -> None:
    parser = CommandLine(
        prog="python -m analysis.report",
        description="Writes one HTML file that shows what a run has learnt and where it errs.",
    )
    parser.add_argument("run", type=Path, help="the folder of a run, as --output_dir named it")
    parser.add_argument("--output", type=Path, help="the file to write; by default report.html in the folder")
    parser.add_argument("--head", default="", help="head of the run if it is your own, as module:Class")
    arguments = parser.parse_args()
    try:
        path = write_report(arguments.run, arguments.output, arguments.head)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
