"""Check on real data that guarantees hold: how often do thresholds of some documents miss too much in the others?

python -m benchmarks.guarantees outputs/conll2003 --max_missed 0.05 --candidates

The documents of dev and test are put together and divided at random, many times: one half gives the threshold, the
other half tells how much it misses. The last line is the way of a user: threshold from dev, measured on test.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.dial import Dial, Dials
from common.run_files import RunFolder

Documents = Sequence[Sequence[float]]  # probabilities of the gold entities of each document


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="output_dir of a run with scores of dev and test")
    parser.add_argument("--max_missed", type=float, default=0.05)
    parser.add_argument("--certainty", type=float, default=0.95)
    parser.add_argument("--candidates", action="store_true", help="overlapping candidates count as found, too")
    parser.add_argument("--divisions", type=int, default=200)
    args = parser.parse_args()
    both = [Dials.read(RunFolder(args.run).dial(split)) for split in ("dev", "test")]
    dev, test = (one.overlapping.documents if args.candidates else one.compatible.documents for one in both)
    asked = f"at most {args.max_missed:.1%} missed with certainty {args.certainty:.0%}"

    def missed_by_threshold_of(calibration: Documents, others: Documents) -> float:
        return missed(others, Dial({}, calibration).threshold_for_missed(args.max_missed, args.certainty))

    documents, generator = [*dev, *test], np.random.default_rng(0)
    measured, refused = [], 0
    for _ in range(args.divisions):
        order = generator.permutation(len(documents)).tolist()
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        first, second = ([documents[index] for index in half] for half in halves)
        try:
            measured.append(missed_by_threshold_of(first, second))
        except ValueError:  # too few documents: then nothing is promised
            refused += 1
    broken = np.sum(np.array(measured) > args.max_missed) / args.divisions
    print(f"{asked}: {len(documents)} documents, {args.divisions} random halves, {refused} without a guarantee")
    print(f"missed in the other half: mean {np.mean(measured):.2%}, more than asked in {broken:.1%} of the divisions")
    print(f"threshold of dev, on test: {missed_by_threshold_of(dev, test):.2%} missed")


def missed(documents: Documents, threshold: float) -> float:
    """The share of a document's entities below the threshold, averaged over documents."""
    return float(np.mean([np.mean(np.asarray(one) < threshold) for one in documents]))


if __name__ == "__main__":
    main()
