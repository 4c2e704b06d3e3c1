"""Fit the transition biases of a softmax model on dev; from then on the model decodes legal tag sequences with them.

python -m tools.fit_transitions outputs/run
python -m tools.fit_transitions checkpoint --task_name own --data_dir data    # of another project
"""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from analysis.metrics import EntityScores, score_entities
from common.command_line import CommandLine
from common.log import console
from common.run_files import RunFolder
from common.transition_biases import KINDS, biases_file
from models import BertSoftmaxForNer
from models.heads.softmax import ARGMAX, VITERBI
from tools.decoding import decoded_documents, encoded_documents, padded_batches
from tools.evaluate import evaluate, gold_entities, score_tagged
from tools.recipe import open_dev
from tools.run_folder import write_json
from tools.script import run_script

logger = logging.getLogger(__name__)
_STEPS = (0.25, -0.25, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)  # of equally good ones, the first is taken
_ROUNDS = 10  # over the six biases, at most; two or three are usual


class Candidate(NamedTuple):
    """A way to decode, and its scores on dev."""

    name: str
    decoding: str
    biases: dict[str, float]
    scores: EntityScores

    @property
    def strict_f1(self) -> float:
        assert self.scores.strict is not None
        return self.scores.strict.f1


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0], usage="%(prog)s RUN [flags of its script]")
    parser.add_argument("folder", metavar="RUN", type=Path, help="output_dir of a run with a softmax head")
    folder: Path = parser.parse_args(sys.argv[1:2]).folder
    fit_transitions(folder, sys.argv[2:])


def fit_transitions(folder: Path, flags: Sequence[str] = ()) -> Candidate:
    """Fit the biases, write the best way to decode into the config of the folder, and score dev with it.

    Biases are chosen only if strict F1 on dev is higher than without them, viterbi only if it is not below argmax.

    Args:
        flags: flags of the folder's script, for other data than those of the run.

    Raises:
        ValueError: the folder holds no trained softmax model, or nothing says where its data are.
    """
    run, model, tokenizer, dataset = open_dev(folder, flags)
    if not isinstance(model, BertSoftmaxForNer):
        raise ValueError(
            f"{folder} holds the head {type(model).__name__}: only softmax heads have no transitions of their own"
        )
    files = RunFolder(folder)
    encoded = list(encoded_documents(run, model, dataset, "Encoding dev"))
    config, batches = model.config, [batch for part in encoded for batch in padded_batches(dataset, *part)]
    annotations = [dataset.annotation(index) for batch in batches for index in batch.documents]
    gold = [gold_entities(one, model.nests) for one in annotations]

    def f1(biases: dict[str, float]) -> float:
        config.tag_decoding, config.transition_biases = VITERBI, biases
        found = [one.entities for batch in batches for one in model.predict(batch.emissions, batch.word_mask)]
        told = [one.judged(entities) for one, entities in zip(annotations, found, strict=True)]
        return score_entities(gold, told).micro.f1

    biases = fitted_biases(f1)
    candidates = []
    for name, decoding, own in (("argmax", ARGMAX, {}), ("viterbi", VITERBI, {}), ("with biases", VITERBI, biases)):
        config.tag_decoding, config.transition_biases = decoding, own
        tagged = [one for part in encoded for one in decoded_documents(model, dataset, *part, run.markup)]
        candidates.append(Candidate(name, decoding, own, score_tagged(tagged, dataset, run.markup).entities))
    by_word, legal, biased = candidates
    best = legal if legal.strict_f1 >= by_word.strict_f1 else by_word
    best = biased if biased.strict_f1 > best.strict_f1 else best
    console().print(_table(candidates, best))
    _keep(files, best)
    config.tag_decoding, config.transition_biases = best.decoding, best.biases
    evaluate(run, model, tokenizer)  # scores and thresholds of dev follow
    if files.results("test").is_file():
        logger.info("The scores of test are those from before; run --do_predict to compute them again")
    return best


def fitted_biases(score: Callable[[dict[str, float]], float]) -> dict[str, float]:
    """Search the biases with the highest score, from zero.

    One bias after the other is moved by the step that raises the score most, if any does, until none does.

    Args:
        score: the score of biases by kind, such as F1 on dev. All sequences are legal, so F1 is strict F1.
    """
    biases = dict.fromkeys(KINDS, 0.0)
    best = score(biases)
    for _ in range(_ROUNDS):
        before = best
        for kind in KINDS:
            moved = [{**biases, kind: biases[kind] + step} for step in _STEPS]
            scores = [score(one) for one in moved]
            if max(scores) > best:
                best = max(scores)
                biases = moved[scores.index(best)]
        if best == before:
            break
    return biases


def _keep(files: RunFolder, best: Candidate) -> None:
    """Write a choice into the config of a folder, and its biases into a file."""
    config = json.loads(files.config.read_text("utf-8"))
    config.pop("transition_biases", None)
    config["tag_decoding"] = best.decoding
    files.transition_biases.unlink(missing_ok=True)
    if best.biases:
        config["transition_biases"] = best.biases
        write_json(files.transition_biases, biases_file(best.biases))
    write_json(files.config, config)
    logger.info("%s now decodes by %s: %s", files.path, best.decoding, best.name)


def _table(candidates: Sequence[Candidate], best: Candidate) -> Table:
    table = Table("dev", *(f"{one.name} *" if one is best else one.name for one in candidates), title="Decoding")
    table.add_row("F1", *(f"{100 * one.scores.micro.f1:.2f}" for one in candidates))
    table.add_row("strict F1", *(f"{100 * one.strict_f1:.2f}" for one in candidates))
    for kind in KINDS:
        table.add_row(kind.replace("_", " "), *(f"{one.biases[kind]:+.2f}" if one.biases else "" for one in candidates))
    return table


if __name__ == "__main__":
    run_script(main)
