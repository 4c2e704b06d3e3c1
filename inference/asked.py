"""Which entities a user asks for: by probability, by precision or recall on dev, or by a guarantee."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.dial import Dial, Dials
from common.command_line import Bounds
from common.run_files import RunFolder
from tools.decoding import Thresholds

logger = logging.getLogger(__name__)
_CANDIDATE = 0.01  # least probability of a candidate if no threshold is given
_CERTAINTY = 0.95
_ROUNDING = 0.005  # of what was asked, in warnings


class Asked(NamedTuple):
    """Which entities to give, if not those that the head predicts: at most one of the first four.

    Args:
        threshold: those of at least this probability.
        recall, precision: those above the thresholds by type that have this recall or precision on dev.
        max_missed: enough to miss at most this share of the entities of a document, on average; see
            `analysis.dial.Dial.threshold_for_missed`.
        candidates: overlapping ones too; alone, those of at least 0.01.
        certainty: of ``max_missed``; by default 0.95.
    """

    threshold: float | None = None
    recall: float | None = None
    precision: float | None = None
    max_missed: float | None = None
    candidates: bool = False
    certainty: float | None = None

    def thresholds(self, folder: Path, types: Sequence[str]) -> Thresholds | None:
        """Thresholds for a model of these types, ``None`` if nothing is asked.

        Raises:
            ValueError: a value is out of range, more than one is given, the folder has no scores of dev, or dev has too
                few documents for the guarantee.
        """
        names = ("threshold", "recall", "precision", "max_missed")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: give one of them")
        if self.certainty is not None and self.max_missed is None:
            raise ValueError(f"--certainty {self.certainty} has no effect without --max_missed; remove it")
        if not given:
            return Thresholds(dict.fromkeys(types, _CANDIDATE), overlapping=True) if self.candidates else None
        ((measure, value),) = given.items()
        if not 0 < value <= 1:
            raise ValueError(f"{measure} {value} is not in (0, 1]")
        if measure == "threshold":
            return Thresholds(dict.fromkeys(types, value), self.candidates)
        path = RunFolder(folder).dial("dev")
        if not path.is_file():
            raise ValueError(f"{path.name} is missing, which --{measure} needs: score {folder} with --do_eval first")
        dials = Dials.read(path)
        dial = dials.overlapping if self.candidates else dials.compatible
        if measure == "max_missed":
            return self._with_guarantee(dial, value, types)
        return Thresholds(self._fitted(dial, measure, value), self.candidates)

    def _fitted(self, dial: Dial, measure: str, value: float) -> dict[str, float]:
        point = dial.operating_point(measure, value)
        levels = ", ".join(f"{name} {level:.4f}" for name, level in point.thresholds.items())
        reached = f"precision {point.precision:.1%}, recall {point.recall:.1%}"
        logger.info("%s %g: thresholds %s; on dev they give %s", measure, value, levels, reached)
        if getattr(point, measure) < value - _ROUNDING:
            advice = "" if self.candidates or measure == "precision" else "; with --candidates more is possible"
            logger.warning("%s %g was not reached on dev, this is the nearest%s", measure, value, advice)
        return point.thresholds

    def _with_guarantee(self, dial: Dial, share: float, types: Sequence[str]) -> Thresholds:
        certainty = _CERTAINTY if self.certainty is None else self.certainty
        threshold = dial.threshold_for_missed(share, certainty)
        message = "threshold %.4f: at most %.1f %% missed with certainty %.0f %%, for texts of the same kind as dev"
        logger.info(message, threshold, 100 * share, 100 * certainty)
        return Thresholds(dict.fromkeys(types, threshold), self.candidates)


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `Asked`."""
    share, below_all = Bounds(float, above=0, at_most=1), Bounds(float, above=0, below=1)
    one_of = parser.add_mutually_exclusive_group()
    one_of.add_argument("--threshold", type=share, help="give all entities of at least this probability")
    one_of.add_argument("--recall", type=share, help="give the entities above the thresholds with this recall on dev")
    one_of.add_argument("--precision", type=share, help="the same with this precision")
    one_of.add_argument("--max_missed", type=below_all, help="give enough entities to miss at most this share of them")
    parser.add_argument(
        "--candidates", action="store_true", help="give overlapping entities too; alone: of at least 0.01"
    )
    parser.add_argument("--certainty", type=below_all, help="with --max_missed: how certain this is; 0.95 if not given")


def asked_of(args: argparse.Namespace) -> Asked:
    return Asked(**{name: getattr(args, name) for name in Asked._fields})
