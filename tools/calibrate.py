"""Calibrate the confidences of a trained model: fit temperatures on one half of dev, and measure them on the other.

python -m tools.calibrate outputs/crf
python -m tools.calibrate outputs/crf --dev_file more/dev.txt

Predictions stay the same; the config keeps the temperatures, which only confidences and candidates read.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from tqdm import tqdm

from analysis.calibration import Judged, reliability
from common.command_line import CommandLine
from common.log import console, console_table
from common.run_files import RunFolder
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools.decoding import DocumentBatch, encoded_documents, padded_batches
from tools.evaluate import evaluate, gold_entities
from tools.recipe import open_dev
from tools.run_folder import write_json
from tools.script import run_script

logger = logging.getLogger(__name__)
_EVALUATIONS = 60
_RANGE = 0.2, 5.0  # of temperatures; without errors in dev, ever smaller ones would be ever better
_CERTAIN = 1e-6  # confidences are kept so far from 0 and 1
_FEWEST = 50  # predicted entities in each half


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0], usage="%(prog)s RUN [flags of its script]")
    parser.add_argument("folder", metavar="RUN", type=Path, help="output_dir of a run")
    folder: Path = parser.parse_args(sys.argv[1:2]).folder
    run, model, tokenizer, dataset = open_dev(folder, sys.argv[2:])
    in_first = first_half(dataset)
    halves: tuple[list[DocumentBatch], list[DocumentBatch]] = [], []
    for emissions, documents in encoded_documents(run, model, dataset, "Encoding dev"):
        for batch in padded_batches(dataset, emissions, documents):
            for half, chosen in zip(halves, (in_first[batch.documents], ~in_first[batch.documents]), strict=True):
                if chosen.any():
                    half.append(_part(batch, chosen))
    former = model.confidence_temperatures
    before = [reliability(judged(model, dataset, half, former)) for half in halves]
    temperatures = fit(model, dataset, halves[0])
    after = [reliability(judged(model, dataset, half, temperatures)) for half in halves]
    rows = [
        (what, *(f"{value:.4f}" for value in (old.error, new.error, old.brier, new.brier)))
        for what, old, new in zip(("half to fit on", "other half"), before, after, strict=True)
    ]
    columns = ("dev", "calibration error before", "after", "Brier score before", "after")
    console().print(console_table(columns, rows, title="Confidences"))
    logger.info("Temperatures: emissions %.4f, transitions %.4f", *temperatures)
    if after[1].brier > before[1].brier:
        logger.warning("the other half has a worse Brier score than before: temperatures left at %s", former)
        return
    config = RunFolder(folder).config
    content = json.loads(config.read_text("utf-8"))
    write_json(config, {**content, "confidence_temperatures": temperatures})
    model.config.confidence_temperatures = list(temperatures)
    evaluate(run, model, tokenizer)  # scores and thresholds of dev follow
    if RunFolder(folder).results("test").is_file():
        logger.info("The scores of test are those from before; run --do_predict to compute them again")


def first_half(dataset: FeatureDataset) -> NDArray[np.bool_]:
    """Whether each text is in the first half: every second document, or text without a document."""
    names = [dataset.document(index).source or f"text {index}" for index in range(dataset.num_documents)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] % 2 == 0 for name in names], bool)


def judged(
    model: Tagger, dataset: FeatureDataset, batches: Sequence[DocumentBatch], temperatures: tuple[float, float]
) -> Judged:
    """Confidences at these temperatures, and which predictions are right."""
    model.config.confidence_temperatures = list(temperatures)
    confidences, right, gold = list[float](), list[bool](), 0
    for batch in batches:
        predictions = model.predict(batch.emissions, batch.word_mask, with_confidence=True)
        for document, prediction in zip(batch.documents, predictions, strict=True):
            annotation = dataset.annotation(document)
            wanted, told = set(gold_entities(annotation, model.nests)), set(annotation.judged(prediction.entities))
            pairs = zip(prediction.entities, prediction.confidences, strict=True)
            found = [(entity in wanted, confidence) for entity, confidence in pairs if entity in told]
            confidences += [confidence for _, confidence in found]
            right += [is_right for is_right, _ in found]
            gold += len(wanted)
    return Judged(np.array(confidences, np.float64), np.array(right, bool), gold)


def fit(model: Tagger, dataset: FeatureDataset, batches: Sequence[DocumentBatch]) -> tuple[float, float]:
    """The temperatures with the least cross-entropy of confidences (Guo et al. 2017, sec. 4.2).

    They divide the emissions, or the scores of spans, and the transitions of a CRF.

    Raises:
        ValueError: there are too few predictions.
    """
    has_transitions = hasattr(model, "crf")
    if (size := len(judged(model, dataset, batches, (1.0, 1.0)).right)) < _FEWEST:
        raise ValueError(f"{size} predicted entities in one half of dev are too few to calibrate on")
    with tqdm(total=_EVALUATIONS, desc="Fitting", disable=not sys.stderr.isatty(), leave=False) as bar:

        def temperatures_of(logs: NDArray[np.float64]) -> tuple[float, float]:
            values = np.exp(logs).clip(*_RANGE).tolist()
            return (values[0], values[1]) if has_transitions else (values[0], 1.0)

        def cross_entropy(logs: NDArray[np.float64]) -> float:
            found = judged(model, dataset, batches, temperatures_of(logs))
            bar.update()
            confidences = found.confidences.clip(_CERTAIN, 1 - _CERTAIN)
            return float(-np.log(np.where(found.right, confidences, 1 - confidences)).mean())

        start = np.full(1 + has_transitions, np.log(1.2))
        options = {"maxfev": _EVALUATIONS, "xatol": 1e-3, "fatol": 1e-5}
        best = minimize(cross_entropy, start, method="Nelder-Mead", options=options)
    return temperatures_of(best.x)


def _part(batch: DocumentBatch, chosen: NDArray[np.bool_]) -> DocumentBatch:
    rows = chosen.nonzero()[0]
    return DocumentBatch(batch.emissions[rows], batch.word_mask[rows], [batch.documents[row] for row in rows])


if __name__ == "__main__":
    run_script(main)
