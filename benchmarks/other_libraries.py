"""Libraries with an environment of their own, as contestants of `benchmarks.train` and `benchmarks.predict`.

python -m venv flair && flair/bin/pip install torch flair
python -m venv spacy && spacy/bin/pip install torch spacy spacy-transformers

Those benchmarks start this module with the Python of that environment, so of this project it imports only what needs
nothing but torch.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.stopwatch import Measured, Stopwatch

_BATCH_SIZES = (1, 8, 32)
_TRIED_TEXTS = 64  # to find the fastest batch size
_EVAL_BATCH = 64
Predict = Callable[[Sequence[str], int], None]


def train_flair(settings: dict[str, Any]) -> Measured:
    """Fine-tune Flair's tagger, without a CRF, as its documentation recommends.

    Args:
        settings: flags of the training; ``data_dir`` has the splits in JSON lines with ``tokens`` and IOB2 ``tags``.
    """
    import flair
    from flair.data import Corpus, Sentence
    from flair.trainers import ModelTrainer
    from flair.trainers.plugins import TrainerPlugin

    def sentences(split: str) -> list[Any]:
        return [annotated(json.loads(line)) for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]

    def annotated(row: dict[str, Any]) -> Any:
        sentence, tags = Sentence(row["tokens"]), [*row["tags"], "O"]
        first = 0
        for number, (tag, after) in enumerate(pairwise(tags)):
            first = number if tag.startswith("B-") else first
            if tag != "O" and not after.startswith("I-"):
                sentence[first : number + 1].add_label("ner", tag[2:])
        return sentence

    class Watch(TrainerPlugin):  # type: ignore[misc]
        step = 0

        @TrainerPlugin.hook  # type: ignore[untyped-decorator]
        def after_training_batch(self, **_: Any) -> None:
            self.step += 1
            watch.end_step(self.step, total_steps)

    flair.device = torch.device("cpu" if settings["no_cuda"] or not torch.cuda.is_available() else "cuda")
    flair.set_seed(settings["seed"])
    folder = Path(settings["data_dir"])
    train, dev = sentences("train"), sentences("dev")
    corpus = Corpus(train, sample_missing_splits=False)  # without dev, which would be evaluated within the training
    labels = corpus.make_label_dictionary("ner", add_unk=False)
    tagger = flair_tagger(settings["model_name_or_path"], labels, settings["do_lower_case"])
    watch = Stopwatch(tagger.embeddings.model)
    batch_size, epochs = settings["per_gpu_train_batch_size"], int(settings["num_train_epochs"])
    total_steps = epochs * math.ceil(len(train) / batch_size)
    ModelTrainer(tagger, corpus).fine_tune(
        settings["output_dir"],
        learning_rate=settings["learning_rate"],
        warmup_fraction=settings["warmup_steps"] / total_steps or settings["warmup_proportion"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"],
        mini_batch_size=batch_size,
        max_epochs=epochs,
        save_final_model=False,
        plugins=[Watch()],
    )
    score = tagger.evaluate(dev, "ner", mini_batch_size=_EVAL_BATCH).main_score
    return replace(watch.measured, f1=score)


def flair_tagger(encoder: str, labels: Any, lower: bool = False) -> Any:
    from flair.embeddings import TransformerWordEmbeddings
    from flair.models import SequenceTagger

    kwargs = {"do_lower_case": True} if lower else {}
    embeddings = TransformerWordEmbeddings(encoder, transformers_tokenizer_kwargs=kwargs)
    return SequenceTagger(embeddings, labels, "ner", use_crf=False, use_rnn=False, reproject_embeddings=False)


def flair_prediction(encoder: str, types: Sequence[str], device: str) -> Predict:
    """Flair's tagger, untrained: it finds next to nothing."""
    import flair
    from flair.data import Dictionary, Sentence

    flair.device = torch.device(device)
    labels = Dictionary(add_unk=False)
    labels.span_labels = True
    for name in types:
        labels.add_item(name)
    tagger = flair_tagger(encoder, labels)
    with torch.no_grad():
        tagger.linear.bias[tagger.label_dictionary.get_idx_for_item("O")] += 100

    def predict(texts: Sequence[str], batch_size: int) -> None:
        sentences = [Sentence(text) for text in texts]
        tagger.predict(sentences, mini_batch_size=batch_size)
        for sentence in sentences:
            sentence.get_spans("ner")

    return predict


def spacy_prediction(encoder: str, types: Sequence[str], device: str) -> Predict:
    """spaCy's pipeline of a transformer and a named entity recogniser, untrained."""
    import spacy
    from spacy.training import Example

    if device != "cpu":
        spacy.require_gpu()
    nlp = spacy.blank("en")
    nlp.add_pipe("transformer", config={"model": {"name": encoder}})
    listener = {"@architectures": "spacy-transformers.TransformerListener.v1", "grad_factor": 1.0}
    listener["pooling"] = {"@layers": "reduce_mean.v1"}
    model = {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "extra_state_tokens": False}
    model |= {"hidden_width": 64, "maxout_pieces": 2, "use_upper": False, "tok2vec": listener}
    nlp.add_pipe("ner", config={"model": model})
    named = [Example.from_dict(nlp.make_doc("a name"), {"entities": [(2, 6, name)]}) for name in types]
    nlp.initialize(lambda: named)

    def predict(texts: Sequence[str], batch_size: int) -> None:
        for document in nlp.pipe(texts, batch_size=batch_size):
            tuple(document.ents)

    return predict


def serve(predict: Predict, texts: list[str]) -> None:
    """Find the fastest batch size and print it; then predict for each line of standard input, and print the seconds."""

    def seconds(batch_size: int, texts: Sequence[str]) -> float:
        start = time.perf_counter()
        predict(texts, batch_size)
        return time.perf_counter() - start

    predict(texts[:8], 8)  # loads what is loaded at first use
    tried = {size: statistics.median(seconds(size, texts[:_TRIED_TEXTS]) for _ in range(2)) for size in _BATCH_SIZES}
    best = min(tried, key=lambda size: tried[size])
    print(best, flush=True)
    for _ in sys.stdin:
        print(seconds(best, texts), flush=True)


def main() -> None:
    action, *given = sys.argv[1:]
    if action == "train":
        settings_file, results = map(Path, given)
        measured = train_flair(json.loads(settings_file.read_text("utf-8")))
        results.write_text(json.dumps(asdict(measured)), "utf-8")
    else:
        library, encoder, device, file = given
        make = {"flair": flair_prediction, "spacy": spacy_prediction}[library]
        asked = json.loads(Path(file).read_text("utf-8"))
        out, sys.stdout = sys.stdout, sys.stderr  # only `serve` prints to the reader
        predict = make(encoder, asked["types"], device)
        sys.stdout = out
        serve(predict, asked["texts"])


if __name__ == "__main__":
    main()
