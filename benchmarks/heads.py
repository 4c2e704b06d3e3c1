"""Compare the speed of trained runs in alternation: optimiser steps, and prediction with confidences.

python -m benchmarks.heads outputs/conll2003_crf outputs/conll2003_softmax outputs/conll2003_span

On a CPU, seconds are those of the processor, so that other programs matter little. The first run is the reference.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from common.log import console
from common.run_files import RunFolder
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools.command_line import parse_settings
from tools.data import load_and_cache_examples
from tools.decoding import decoded_documents, stitched_emissions
from tools.heads import head_of_folder
from tools.loading import adopt_model, load_model_and_tokenizer
from tools.optimizer import build_optimizer
from tools.run import Run

_STEPS = 10  # of a round


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subjects = {folder.name: _subject(folder, device) for folder in args.runs}
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in subjects}
    for number in tqdm(range(args.rounds + 1), desc="Rounds"):  # the first one warms up
        for name, (_, _, steps, prediction) in subjects.items():
            for kind, action in enumerate((steps, prediction)):
                spent = _timed(action, device)
                if number:
                    seconds[name][kind].append(spent)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table("run", title=f"Words per second on {where}, torch {torch.__version__}")
    for column in ("parameters", "training", "ratio", "prediction", "ratio"):
        table.add_column(column, justify="right")
    medians = {name: [statistics.median(one) for one in spent] for name, spent in seconds.items()}
    speeds = {
        name: [words / spent for words, spent in zip(subjects[name][1], medians[name], strict=True)]
        for name in subjects
    }
    reference = next(iter(speeds.values()))
    for name, own in speeds.items():
        parameters = sum(weight.numel() for weight in subjects[name][0].parameters())
        numbers = [
            text for mine, first in zip(own, reference, strict=True) for text in (f"{mine:,.0f}", f"{mine / first:.2f}")
        ]
        table.add_row(name, f"{parameters / 1e6:.1f} M", *numbers)
    console().print(table)


Subject = tuple[Tagger, tuple[int, int], Callable[[], None], Callable[[], None]]


def _subject(folder: Path, device: torch.device) -> Subject:
    """The model of a run, the words of a round of training and of prediction, and these rounds."""
    head = head_of_folder(folder)
    flags = ["--do_train=false", "--do_eval=true", "--resume_from_checkpoint=", f"--output_dir={folder}"]
    settings = parse_settings(head.Options, None, [f"--config_file={RunFolder(folder).settings}", *flags])
    run = Run.of(settings, device)
    run, model, tokenizer = load_model_and_tokenizer(run, head)
    run = adopt_model(run, model)
    train = load_and_cache_examples(run, settings.data.task_name, tokenizer, "train")
    dev = load_and_cache_examples(run, settings.data.task_name, tokenizer, "dev")
    train.encode = model.encode
    size = settings.optimisation.per_gpu_train_batch_size
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [sorted(order[step * size : (step + 1) * size]) for step in range(_STEPS)]
    optimizer = build_optimizer(settings.optimisation, model, settings.head)
    documents = range(min(500, dev.num_documents))

    def steps() -> None:
        model.train()
        for batch in batches:
            with run.precision.autocast():
                loss = model(**_inputs(train, batch, device)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    @torch.inference_mode()
    def prediction() -> None:
        model.eval()
        windows = dev.windows_of(documents.start, documents.stop)
        lengths = dev.lengths[windows.start : windows.stop]
        groups = [lengths.argsort()[start : start + 64] for start in range(0, len(lengths), 64)]
        with run.precision.autocast():
            emissions = stitched_emissions(model, dev, windows, groups, device)
        list(decoded_documents(model, dev, emissions, documents, run.markup, with_confidence=True))

    words = int(sum(train.word_counts[batch].sum() for batch in batches))
    predicted = int(dev.arrays["document_words"][documents.start : documents.stop].sum())
    return model, (words, predicted), steps, prediction


def _inputs(dataset: FeatureDataset, batch: list[int], device: torch.device) -> dict[str, Tensor]:
    collated = dataset.collate([dataset[index] for index in batch])
    return {name: tensor.to(device) for name, tensor in collated.items()}


def _timed(action: Callable[[], None], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()
