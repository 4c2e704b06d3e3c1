"""Fit the transition biases of a softmax model on dev; from then on the model decodes legal tag sequences with them.

python -m tools.fit_transitions outputs/run
python -m tools.fit_transitions checkpoint --task_name own --data_dir data    # of another project
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from analysis.metrics import EntityScores
from common.command_line import CommandLine
from common.log import console
from common.run_files import RunFolder
from common.transition_biases import KINDS, biases_file
from models import BertSoftmaxForNer
from models.crf import CRF
from models.heads.softmax import ARGMAX, VITERBI
from models.heads.transitions import kinds_of_transitions
from processors.features.dataset import FeatureDataset
from tools.command_line import flag_value, parse_settings
from tools.data import load_and_cache_examples
from tools.decoding import decoded_documents, encoded_documents, padded_batches
from tools.evaluate import check_dataset, evaluate, score_tagged
from tools.heads import check_has_model, head_of_folder
from tools.loading import adopt_model, load_model_and_tokenizer
from tools.recipe import run_script, start_run
from tools.run_folder import data_flags, write_json

logger = logging.getLogger(__name__)
_PRIOR = 0.01  # half the inverse variance of the biases; keeps those that dev says nothing about at zero
Batch = tuple[Tensor, Tensor, Tensor]  # emissions (B, W, C), tags (B, W), and which of them are known (B, W)


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
    check_has_model(folder, "name the output_dir of a run")
    head, files = head_of_folder(folder, flag_value(flags, "head")), RunFolder(folder)
    if not issubclass(head, BertSoftmaxForNer):
        raise ValueError(
            f"{folder} holds the head {head.__name__}: only softmax heads have no transitions of their own"
        )
    data = [f"--{name}={value}" for name, value in data_flags(files).items()] if files.settings.is_file() else []
    settings = parse_settings(head.Options, None, [*data, f"--output_dir={folder}", "--do_eval", *flags])
    run = start_run(settings, head)
    run, model, tokenizer = load_model_and_tokenizer(run, head)
    run = adopt_model(run, model)
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")
    check_dataset(dataset, model)
    encoded = list(encoded_documents(run, model, dataset, "Encoding dev"))
    config = model.config
    config.tag_decoding, config.transition_biases = VITERBI, {}
    gold = [batch for emissions, documents in encoded for batch in _gold(model, dataset, emissions, documents)]
    biases = fitted_biases(model.legal_crf(), kinds_of_transitions(tuple(model.tag_names)), gold)
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


def _gold(model: BertSoftmaxForNer, dataset: FeatureDataset, emissions: Tensor, documents: range) -> list[Batch]:
    found = []
    for rows, mask, indices in padded_batches(dataset, emissions, documents):
        tags = model.encode([dataset.annotation(index) for index in indices]).to(rows.device)
        found.append((rows, tags.clamp(min=0), mask & (tags != -100)))
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
