"""Calibrate the confidences of a trained model: fit corrections on one half of dev, and measure them on the other.

python -m tools.calibrate outputs/crf
python -m tools.calibrate outputs/crf --dev_file more/dev.txt

Two corrections: temperatures, and a curve for each way that the training data know an entity. Predictions stay the
same; the config keeps the corrections, which only confidences and candidates read.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from tqdm import tqdm
from transformers import PreTrainedConfig

from analysis.calibration import Judged, reliability
from common.command_line import CommandLine
from common.log import console, console_table
from common.run_files import RunFolder
from models.recalibration import Familiarity, Recalibration, TrainingEntities, forget_calibration, logit
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools.decoding import DocumentBatch, encoded_documents, padded_batches, predicted_entities
from tools.evaluate import evaluate, gold_entities
from tools.recipe import open_dev
from tools.run import Run
from tools.run_folder import write_json
from tools.script import run_script

logger = logging.getLogger(__name__)
_EVALUATIONS = 60
_RANGE = 0.2, 5.0  # of temperatures and slopes; without errors in dev, ever smaller temperatures would be ever better
_KINDS = {
    Familiarity.NEW: "that the training data do not have",
    Familiarity.OTHER_TYPE: "that they have with other types only",
    Familiarity.KNOWN: "that they have with this type",
}
_FEWEST = 50  # predicted entities in each half
_FEWEST_OF_KIND = 20  # candidates of one familiarity, for a curve of its own
_LEAST_CANDIDATE = 0.01  # probability; curves of predictions alone would not hold for the less probable


class Correction(NamedTuple):
    """What corrects the confidences of a model.

    Args:
        temperatures: of emissions, or scores of spans, and of transitions.
        recalibration: the curves; ``None``: temperatures alone.
    """

    temperatures: tuple[float, float] = (1.0, 1.0)
    recalibration: Recalibration | None = None

    @classmethod
    def of(cls, model: Tagger) -> Self:
        return cls(model.confidence_temperatures, Recalibration.of(model.config))

    def as_config(self) -> dict[str, Any]:
        curves = {"recalibration": self.recalibration.as_config()} if self.recalibration else {}
        return {"confidence_temperatures": list(self.temperatures), **curves}

    def apply(self, config: PreTrainedConfig) -> None:
        forget_calibration(config)
        config.update(self.as_config())


class Half(NamedTuple):
    """The texts of one half of dev, with their emissions."""

    dataset: FeatureDataset
    batches: list[DocumentBatch]

    def judged(self, model: Tagger, correction: Correction) -> Judged:
        """Confidences, and which predictions are right."""
        correction.apply(model.config)
        confidences, right, gold = list[float](), list[bool](), 0
        for batch in self.batches:
            documents = [self.dataset.document(number) for number in batch.documents]
            texts = [document.words for document in documents] if correction.recalibration else []
            predictions = predicted_entities(model, batch.emissions, batch.word_mask, texts)
            for document, prediction in zip(documents, predictions, strict=True):
                wanted = set(gold_entities(document.annotation, model.nests))
                told = set(document.annotation.judged(prediction.entities))
                pairs = zip(prediction.entities, prediction.confidences, strict=True)
                found = [(entity in wanted, confidence) for entity, confidence in pairs if entity in told]
                confidences += [confidence for _, confidence in found]
                right += [is_right for is_right, _ in found]
                gold += len(wanted)
        return Judged(np.array(confidences, np.float64), np.array(right, bool), gold)

    def candidates(self, model: Tagger, known: TrainingEntities) -> tuple[NDArray[np.float64], ...]:
        """Probabilities of all candidates ``(N,)``, whether they are right, and how the training data know them.

        Of predictions, where the head has no candidates.
        """
        found = list[tuple[float, bool, Familiarity]]()
        for rows, mask, numbers in self.batches:
            if model.has_candidates:
                probable = model.candidates(rows, mask, _LEAST_CANDIDATE)
            else:
                predictions = model.predict(rows, mask, with_confidence=True)
                probable = [list(zip(one.entities, one.confidences, strict=True)) for one in predictions]
            for number, row in zip(numbers, probable, strict=True):
                document, probabilities = self.dataset.document(number), dict(row)
                wanted = set(gold_entities(document.annotation, model.nests))
                for one in document.annotation.judged(probabilities):
                    found.append((probabilities[one], one in wanted, known.familiarity(document.words, one)))
        return tuple(np.array(found, np.float64).reshape(-1, 3).T)


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0], usage="%(prog)s RUN [flags of its script]")
    parser.add_argument("folder", metavar="RUN", type=Path, help="output_dir of a run")
    folder: Path = parser.parse_args(sys.argv[1:2]).folder
    run, model, tokenizer, dataset = open_dev(folder, sys.argv[2:])
    halves = divided(run, model, dataset)
    corrections = {"as it is": Correction.of(model), "temperatures": Correction(fit_temperatures(model, halves[0]))}
    if run.corpus.has("train"):
        known = TrainingEntities.collect((one.words, one.entities or ()) for one in run.corpus.examples("train"))
        corrections["temperatures and curves"] = with_curves(model, halves[0], corrections["temperatures"], known)
    else:
        logger.warning("no train split: no curves, which need to know the entities of the training data")
    scores = {
        name: [reliability(half.judged(model, correction)) for half in halves]
        for name, correction in corrections.items()
    }
    rows = [
        (name, *(f"{value:.4f}" for half in of_halves for value in (half.error, half.brier)))
        for name, of_halves in scores.items()
    ]
    columns = ("correction", "calibration error", "Brier score", "error, other half", "Brier score, other half")
    console().print(console_table(columns, rows, title="Confidences on dev: the half to fit on, and the other"))
    best = min(scores, key=lambda name: scores[name][1].brier)
    chosen = corrections[best]
    chosen.apply(model.config)
    if best == "as it is":
        logger.warning("no correction improves the Brier score of the other half: confidences left as they are")
        return
    logger.info("Kept, by the Brier score of the other half: %s", best)
    logger.info("Temperatures: emissions %.4f, transitions %.4f", *chosen.temperatures)
    if chosen.recalibration:
        for kind, (slope, intercept) in zip(Familiarity, chosen.recalibration.curves, strict=True):
            logger.info("Entities %s: slope %.4f, intercept %.4f", _KINDS[kind], slope, intercept)
    config = RunFolder(folder).config
    content = json.loads(config.read_text("utf-8"))
    content.pop("recalibration", None)
    write_json(config, content | chosen.as_config())
    evaluate(run, model, tokenizer)  # scores and thresholds of dev follow
    if RunFolder(folder).results("test").is_file():
        logger.info("The scores of test are those from before; run --do_predict to compute them again")


def divided(run: Run, model: Tagger, dataset: FeatureDataset) -> tuple[Half, Half]:
    """Encode dev, and divide it: every second document, or text without a document.

    Raises:
        ValueError: a half has too few predictions.
    """
    names = [dataset.document(index).source or f"text {index}" for index in range(dataset.num_documents)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    in_first = np.array([numbers[name] % 2 == 0 for name in names], bool)
    halves = Half(dataset, []), Half(dataset, [])
    for emissions, documents in encoded_documents(run, model, dataset, "Encoding dev"):
        for batch in padded_batches(dataset, emissions, documents):
            of_first = in_first[batch.documents]
            for half, chosen in zip(halves, (of_first, ~of_first), strict=True):
                if chosen.any():
                    rows = chosen.nonzero()[0]
                    ids = [batch.documents[row] for row in rows]
                    half.batches.append(DocumentBatch(batch.emissions[rows], batch.word_mask[rows], ids))
    for half in halves:
        if (size := len(half.judged(model, Correction()).right)) < _FEWEST:
            raise ValueError(f"{size} predicted entities in one half of dev are too few to calibrate on")
    return halves


def fit_temperatures(model: Tagger, half: Half) -> tuple[float, float]:
    """The temperatures with the least cross-entropy of confidences (Guo et al. 2017, sec. 4.2).

    They divide the emissions, or the scores of spans, and the transitions of a CRF.
    """
    has_transitions = hasattr(model, "crf")
    with tqdm(total=_EVALUATIONS, desc="Fitting", disable=not sys.stderr.isatty(), leave=False) as bar:

        def temperatures_of(logs: NDArray[np.float64]) -> tuple[float, float]:
            values = np.exp(logs).clip(*_RANGE).tolist()
            return (values[0], values[1]) if has_transitions else (values[0], 1.0)

        def cross_entropy(logs: NDArray[np.float64]) -> float:
            found = half.judged(model, Correction(temperatures_of(logs)))
            bar.update()
            logits = logit(found.confidences)
            return float(np.logaddexp(0, np.where(found.right, -logits, logits)).mean())

        start = np.full(1 + has_transitions, np.log(1.2))
        options = {"maxfev": _EVALUATIONS, "xatol": 1e-3, "fatol": 1e-5}
        best = minimize(cross_entropy, start, method="Nelder-Mead", options=options)
    return temperatures_of(best.x)


def with_curves(model: Tagger, half: Half, tempered: Correction, known: TrainingEntities) -> Correction:
    """Add a curve for each familiarity, fitted after the temperatures; few candidates get the curve of all."""
    tempered.apply(model.config)
    probabilities, right, kinds = half.candidates(model, known)
    enough = [kind for kind in Familiarity if (kinds == kind).sum() >= _FEWEST_OF_KIND]
    of_all = fit_curve(probabilities, right > 0)
    of_kinds = {kind: fit_curve(probabilities[kinds == kind], right[kinds == kind] > 0) for kind in enough}
    curves = [of_kinds.get(kind, of_all) for kind in Familiarity]
    return tempered._replace(recalibration=Recalibration(known, curves))


def fit_curve(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept with the least cross-entropy to the smoothed targets of Platt (1999, sec. 2.2).

    They stay finite if all predictions are right.
    """
    logits, hits = logit(confidences), int(right.sum())
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def cross_entropy(curve: NDArray[np.float64]) -> float:
        scores = curve[0] * logits + curve[1]
        return float((np.logaddexp(0, scores) - targets * scores).mean())

    best = minimize(cross_entropy, (1.0, 0.0), method="L-BFGS-B", bounds=(_RANGE, (None, None)))
    slope, intercept = best.x.tolist()
    return slope, intercept


if __name__ == "__main__":
    run_script(main)
