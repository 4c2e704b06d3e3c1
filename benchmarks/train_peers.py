"""The contestants of `benchmarks.train`, each a process that reads its settings from a file and writes its figures."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
    set_seed,
)

from analysis.metrics import score_entities
from benchmarks.stopwatch import Measured, Stopwatch
from callbacks import Callback, TrainState
from common.run_files import RunFolder
from common.tag_schemes import MARKUPS, entities_to_tags, tag_set, tags_to_entities
from models import head_named
from processors.examples import Example
from tools.command_line import parse_settings
from tools.run import corpus_of
from tools.run_folder import write_json
from tools.settings import Settings

_IGNORED = -100
_EVAL_BATCH = 64


class StopwatchCallback(Callback):
    """Times a training of this project."""

    watch: ClassVar[Stopwatch]

    def on_train_begin(self, state: TrainState) -> None:
        type(self).watch = Stopwatch(cast(PreTrainedModel, state.model).base_model)

    def on_step(self, state: TrainState) -> None:
        self.watch.end_step(state.step, state.total_steps)


def ours(script: str, settings_file: Path) -> Measured:
    """Train with a script of this project."""
    from benchmarks.train_peers import StopwatchCallback  # the class that --callback finds, not that of __main__

    flags = ["--callback=benchmarks.train_peers:StopwatchCallback", "--evaluate_during_training=false"]
    sys.argv[1:] = [f"--config_file={settings_file}", "--do_train", "--do_eval", *flags]
    importlib.import_module(script).main()
    settings = json.loads(settings_file.read_text("utf-8"))
    scores = json.loads(RunFolder(Path(settings["output_dir"])).results("dev").read_text("utf-8"))
    return replace(StopwatchCallback.watch.measured, f1=scores["f1"])


class Texts:
    """The texts of the train and dev splits, with tags in IOB2."""

    def __init__(self, settings: Settings) -> None:
        corpus = corpus_of(settings.data)
        self.tags = tag_set(corpus.entity_types(), MARKUPS["bio"])
        self.train, self.dev = (list(corpus.examples(split)) for split in ("train", "dev"))

    def labels(self, example: Example) -> list[int]:
        """Id of the tag of each word."""
        tags = entities_to_tags(example.entities or (), len(example.words), MARKUPS["bio"])
        return [self.tags.index(tag) for tag in tags]

    def f1(self, predicted: Sequence[Sequence[int]]) -> float:
        """F1 of the predicted tags of dev. Words after the last window have no tag, and so no entity."""
        found = [tags_to_entities([self.tags[tag] for tag in tags]) for tags in predicted]
        return score_entities([list(example.entities or ()) for example in self.dev], found).micro.f1


def encoded(
    texts: Texts, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, length: int
) -> list[dict[str, list[int]]]:
    """Inputs of each text, cut off after ``length`` tokens, with the label of a word at its first piece."""
    inputs = tokenizer(
        [example.words for example in examples], is_split_into_words=True, truncation=True, max_length=length
    )
    rows = []
    for index, example in enumerate(examples):
        labels = labels_at_first_pieces(inputs.word_ids(index), texts.labels(example))
        rows.append({name: inputs[name][index] for name in inputs} | {"labels": labels})
    return rows


def labels_at_first_pieces(words: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """Label of each token: that of its word at the first piece, ignored elsewhere. ``words``: word of each token."""
    return [
        _IGNORED if word is None or word == before else labels[word]
        for word, before in zip(words, [None, *words], strict=False)
    ]


def transformers_trainer(settings: Settings, sampling: str) -> Measured:
    """Train as the example ``run_ner.py`` of transformers does."""
    texts, optimisation = Texts(settings), settings.optimisation
    set_seed(optimisation.seed)
    encoder, tokenizer, length = opened_encoder(settings)
    names = dict(enumerate(texts.tags))
    model = AutoModelForTokenClassification.from_pretrained(
        encoder, id2label=names, label2id={name: number for number, name in names.items()}
    )
    arguments = TrainingArguments(
        output_dir=settings.actions.output_dir,
        per_device_train_batch_size=optimisation.per_gpu_train_batch_size,
        num_train_epochs=optimisation.num_train_epochs,
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        max_grad_norm=optimisation.max_grad_norm,
        warmup_steps=optimisation.warmup_steps or optimisation.warmup_proportion,
        bf16=settings.machine.bf16,
        fp16=settings.machine.fp16,
        use_cpu=settings.machine.no_cuda or not torch.cuda.is_available(),
        seed=optimisation.seed,
        train_sampling_strategy=sampling,
        save_strategy="no",
        report_to="none",
    )
    collator = DataCollatorForTokenClassification(tokenizer)
    rows = encoded(texts, texts.train, tokenizer, length)
    clock = _TrainerStopwatch(model)
    trainer = Trainer(model, arguments, collator, rows, callbacks=[clock])
    trainer.train()
    f1 = f1_of_dev(texts, model, lambda batch: model(**batch).logits.argmax(-1), collator, tokenizer, length)
    return replace(clock.watch.measured, f1=f1)


class _TrainerStopwatch(TrainerCallback):
    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.watch = Stopwatch(self._model.base_model)  # the model is on its device now

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.watch.end_step(state.global_step, state.max_steps)


def opened_encoder(settings: Settings) -> tuple[str, PreTrainedTokenizerBase, int]:
    """Name of the encoder, its tokenizer, and the longest window in tokens."""
    name = settings.model.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(name, **({"do_lower_case": True} if settings.model.do_lower_case else {}))
    return name, tokenizer, min(settings.model.train_max_seq_length, tokenizer.model_max_length)


def f1_of_dev(
    texts: Texts,
    model: nn.Module,
    decode: Callable[[dict[str, Tensor]], Any],
    collate: Callable[[Any], Any],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
) -> float:
    """F1 of a peer on dev; ``decode`` returns a tag id for each token of a batch."""
    model.eval()
    device, predicted = next(model.parameters()).device, []
    with torch.inference_mode():
        for batch in DataLoader(encoded(texts, texts.dev, tokenizer, length), _EVAL_BATCH, collate_fn=collate):  # type: ignore[arg-type]
            labels = batch.pop("labels")
            tags = decode({name: tensor.to(device) for name, tensor in batch.items()})
            for row, known in zip(tags, labels.tolist(), strict=True):
                predicted.append([int(tag) for tag, label in zip(row, known, strict=False) if label != _IGNORED])
    return texts.f1(predicted)


class PaddedCrf(nn.Module):
    """Encoder, linear layer and pytorch-crf over all tokens with [CLS] and [SEP], as in BERT-NER-Pytorch."""

    def __init__(self, encoder: PreTrainedModel, num_tags: int) -> None:
        from torchcrf import CRF

        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(0.1)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_tags)
        self.crf = CRF(num_tags, batch_first=True)

    def emissions(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        named = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids, attention_mask=attention_mask, **named).last_hidden_state
        logits: Tensor = self.classifier(self.dropout(states))  # (B, T, C)
        return logits

    def forward(self, labels: Tensor, **inputs: Tensor) -> Tensor:
        emissions = self.emissions(**inputs).float()
        loss: Tensor = -self.crf(emissions, labels.clamp(min=0), inputs["attention_mask"].bool(), reduction="mean")
        return loss


def padded_crf(settings: Settings) -> Measured:
    """Train on batches in random order, all padded to the window length."""
    texts, optimisation, machine = Texts(settings), settings.optimisation, settings.machine
    set_seed(optimisation.seed)
    device = torch.device("cpu" if machine.no_cuda or not torch.cuda.is_available() else "cuda")
    encoder, tokenizer, length = opened_encoder(settings)
    model = PaddedCrf(AutoModel.from_pretrained(encoder), len(texts.tags)).to(device)
    collate = DataCollatorForTokenClassification(tokenizer, padding="max_length", max_length=length)
    rows = encoded(texts, texts.train, tokenizer, length)
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        optimisation.per_gpu_train_batch_size,
        shuffle=True,
        collate_fn=collate,
    )
    rates = [
        {
            "params": model.crf.parameters(),
            "lr": getattr(settings.head, "crf_learning_rate", optimisation.learning_rate),
        },
        {"params": [*model.encoder.parameters(), *model.classifier.parameters()]},
    ]
    optimizer = torch.optim.AdamW(rates, optimisation.learning_rate, weight_decay=optimisation.weight_decay)
    total_steps = int(optimisation.num_train_epochs) * len(loader)
    warmup = optimisation.warmup_steps or int(optimisation.warmup_proportion * total_steps)
    schedule = get_scheduler("linear", optimizer, warmup, total_steps)
    watch = Stopwatch(model.encoder)
    model.train()
    batches = chain.from_iterable(repeat(loader))
    for step, batch in enumerate(tqdm(islice(batches, total_steps), "Training", total_steps), start=1):
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.bf16):
            loss = model(**inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimisation.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        watch.end_step(step, total_steps)

    def decode(batch: dict[str, Tensor]) -> Iterator[list[int]]:
        return iter(model.crf.decode(model.emissions(**batch), batch["attention_mask"].bool()))

    return replace(watch.measured, f1=f1_of_dev(texts, model, decode, collate, tokenizer, length))


def main() -> None:
    name, settings_file, results = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if name in ("crf", "softmax"):
        measured = ours(f"run_ner_{name}", settings_file)
    else:
        settings = parse_settings(head_named("crf").Options, argv=[f"--config_file={settings_file}"])
        measured = padded_crf(settings) if name == "padded_crf" else transformers_trainer(settings, _SAMPLING[name])
    write_json(results, vars(measured))


_SAMPLING = {"trainer": "random", "trainer_by_length": "group_by_length"}
CONTESTANTS = {
    "crf": "this project, CRF",
    "softmax": "this project, softmax",
    "trainer": "transformers Trainer, random batches",
    "trainer_by_length": "transformers Trainer, grouped by length",
    "padded_crf": "pytorch-crf, padded to the window",
}


if __name__ == "__main__":
    main()
