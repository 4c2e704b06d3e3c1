"""Fit the transition biases of a softmax model on dev; from then on the model decodes legal tag sequences with them.

python -m tools.fit_transitions outputs/run
python -m tools.fit_transitions outputs/run --output biases.json    # leaves the run as it is
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from analysis.metrics import EntityScores
from common.command_line import CommandLine
from common.log import console, setup_logging
from common.run_files import RunFolder
from common.transition_biases import KINDS, biases_file
from models import BertSoftmaxForNer
from models.crf import CRF
from models.heads.softmax import ARGMAX, VITERBI
from models.heads.transitions import kinds_of_transitions
from processors.features.dataset import FeatureDataset
from tools.data import load_and_cache_examples
from tools.decoding import batches_of_a_size, decoded_documents, stitched_emissions
from tools.distributed import setup_devices
from tools.evaluate import check_dataset, score_tagged
from tools.heads import check_has_model, head_of_folder
from tools.loading import load_model_and_tokenizer
from tools.recipe import run_script
from tools.run import Run
from tools.run_folder import data_flags, write_json
from tools.settings import Settings

logger = logging.getLogger(__name__)
_PRIOR = 0.01  # half the inverse variance of the biases; keeps those that dev says nothing about at zero
_BATCH_TOKENS, _BATCH_WORDS = 4096, 8192


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
    parser = CommandLine(prog="python -m tools.fit_transitions", description="Fit transition biases on dev.")
    parser.add_argument("run", type=Path, help="output_dir of a training run with a softmax head")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    parser.add_argument("--output", type=Path, help="file to write the biases to; the run stays as it is")
    args = parser.parse_args()
    setup_logging()
    fit_transitions(args.run, args.output, args.head)


def fit_transitions(folder: Path, output: Path | None = None, head: str = "") -> Candidate:
    """Fit the biases, score dev with and without them, and write the best choice into the config of the run.

    Biases are chosen only if strict F1 is higher than without them, viterbi only if it is not below argmax.

    Args:
        output: file to write the biases to; the run then stays as it is.

    Raises:
        ValueError: the folder holds no trained softmax model, or does not say where its data are.
    """
    check_has_model(folder, "name the output_dir of a run")
    found, files = head_of_folder(folder, head), RunFolder(folder)
    if not issubclass(found, BertSoftmaxForNer):
        raise ValueError(
            f"{folder} holds the head {found.__name__}: only softmax heads have no transitions of their own"
        )
    settings = Settings.of(found.Options, output_dir=str(folder), **data_flags(files))
    run, model, tokenizer = load_model_and_tokenizer(Run.of(settings, *setup_devices(settings.machine)), found)
    dataset = load_and_cache_examples(run, run.corpus.task_name, tokenizer, "dev")
    check_dataset(dataset, model)
    model.eval().to(run.device)
    emissions = all_emissions(model, dataset)
    config = model.config
    config.tag_decoding, config.transition_biases = VITERBI, {}
    biases = fitted_biases(
        model.legal_crf(), kinds_of_transitions(tuple(model.tag_names)), gold(model, dataset, emissions)
    )
    candidates = []
    for name, decoding, own in (("argmax", ARGMAX, {}), ("viterbi", VITERBI, {}), ("with biases", VITERBI, biases)):
        config.tag_decoding, config.transition_biases = decoding, own
        tagged = decoded_documents(model, dataset, emissions, range(dataset.num_documents), run.markup)
        candidates.append(Candidate(name, decoding, own, score_tagged(tagged, dataset, run.markup).entities))
    best = max(reversed(candidates[:2]), key=lambda one: one.strict_f1)  # viterbi if they are equal
    best = max(best, candidates[2], key=lambda one: one.strict_f1)
    console().print(_table(candidates, best))
    if output is not None:
        write_json(output, biases_file(biases))
        logger.info("Biases written to %s; the run is unchanged", output)
    else:
        _keep(files, best)
    return best


@torch.inference_mode()
def all_emissions(model: BertSoftmaxForNer, dataset: FeatureDataset) -> Tensor:
    """Emissions of all words of a dataset, in order: ``(words, C)``."""
    batches = batches_of_a_size(dataset.lengths, _BATCH_TOKENS)
    return stitched_emissions(model, dataset, range(len(dataset)), batches, model.device)


Batch = tuple[Tensor, Tensor, Tensor]  # emissions (B, W, C), tags (B, W), and which of them are known (B, W)


def gold(model: BertSoftmaxForNer, dataset: FeatureDataset, emissions: Tensor) -> list[Batch]:
    """The documents with their tags, in batches of similar length."""
    lengths = np.asarray(dataset.arrays["document_words"], np.int64)
    documents = emissions.clone().split(lengths.tolist())  # no inference tensors
    found = []
    for batch in batches_of_a_size(lengths, _BATCH_WORDS):
        rows = pad_sequence([documents[index] for index in batch], batch_first=True)
        tags = model.encode([dataset.annotation(int(index)) for index in batch]).to(rows.device)
        found.append((rows, tags.clamp(min=0), tags != -100))
    return found


def fitted_biases(crf: CRF, kinds: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
    """The biases of the highest likelihood, with a weak prior: a concave function of six numbers (L-BFGS).

    Args:
        crf: legal transitions; its own scores are not used.
        kinds: ``(C, C)`` index of the kind of each transition.
    """
    device = crf.transitions.device
    values, kinds = torch.zeros(len(KINDS), device=device, requires_grad=True), kinds.to(device)
    optimizer = torch.optim.LBFGS([values], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        total = _PRIOR * values.square().sum()
        for rows, tags, known in batches:
            total = total - functional_call(crf, {"transitions": values[kinds]}, (rows, tags, known))
        total.backward()
        return total.item()

    with torch.enable_grad():
        optimizer.step(loss)
    return {kind: round(value, 4) for kind, value in zip(KINDS, values.tolist(), strict=True)}


def _keep(files: RunFolder, best: Candidate) -> None:
    """Write a choice into the config of a run, and its biases into a file."""
    config = json.loads(files.config.read_text("utf-8"))
    config.pop("transition_biases", None)
    config["tag_decoding"] = best.decoding
    files.transition_biases.unlink(missing_ok=True)
    if best.biases:
        config["transition_biases"] = best.biases
        write_json(files.transition_biases, biases_file(best.biases))
    write_json(files.config, config)
    advice = "the scores in the folder are those of before: run it again with --do_eval and --do_predict"
    logger.info("%s now decodes by %s, %s; %s", files.path, best.decoding, best.name, advice)


def _table(candidates: Sequence[Candidate], best: Candidate) -> Table:
    table = Table("decoding", title="dev")
    for column in ("F1", "strict F1", *KINDS):
        table.add_column(column.replace("_", " "), justify="right")
    for one in candidates:
        biases = [f"{one.biases[kind]:+.2f}" if one.biases else "" for kind in KINDS]
        scores = (f"{100 * one.scores.micro.f1:.2f}", f"{100 * one.strict_f1:.2f}")
        table.add_row(f"{one.name} *" if one is best else one.name, *scores, *biases)
    return table


if __name__ == "__main__":
    run_script(main)
