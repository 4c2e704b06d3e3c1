"""Named entity recognition with BERT: a minimal, self-contained example that uses no other module of this project.

A tokenizer splits words into word pieces; BERT computes a contextual vector for each piece; a linear layer computes a
score per label from each vector; training increases the score of the correct label.

python bert_ner.py [--data FILE] [--model NAME]    # default: the bundled sample, and a small encoder from scratch
FILE is one JSON object: {"0": {"sents": "Anna left New York", "ner_labels": "B-PER O B-LOC I-LOC"}, ...}, with labels
in IOB2: B-PER starts a person, I-PER continues it, and O is a word outside all entities.
"""

import argparse
import json
import random
from pathlib import Path
from typing import NamedTuple

import torch
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase, enable_full_determinism

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IGNORED = -100  # target of pieces that do not count in the loss
Sentence = tuple[list[str], list[str]]  # words and labels


class Example(NamedTuple):  # a sentence as model input, with T pieces
    ids: Tensor  # (T,) piece ids, including special tokens such as [CLS] and [SEP]
    targets: Tensor  # (T,) label ids, or IGNORED
    first_pieces: list[int | None]  # index of each word's first piece; None for a lost word
    labels: list[str]  # one per word


def read_sentences(path: Path) -> list[Sentence]:
    try:
        entries = json.loads(path.read_text("utf-8")).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not one JSON object: {error}") from error
    return [read_entry(entry, f"{path}, entry {key!r}") for key, entry in entries]


def read_entry(entry: object, place: str) -> Sentence:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("sents", "ner_labels")):
        raise ValueError(f'{place} is not of the form {{"sents": "w w w", "ner_labels": "O B-LOC O"}}')
    words, labels = entry["sents"].split(), entry["ner_labels"].split()
    if not words or len(words) != len(labels):
        raise ValueError(f"{place} has {len(words)} words and {len(labels)} labels")
    for previous, label in zip(["O", *labels], labels, strict=False):
        if label[:2] not in ("O", "B-", "I-") or (label[0] == "I" and label[1:] != previous[1:]):
            raise ValueError(f"{place} is not IOB2: {label} follows {previous}")
    return words, labels


def split(sentences: list[Sentence], train_ratio: float, seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Split into train and dev sentences, at random, because neighbouring sentences are similar."""
    shuffled = random.Random(seed).sample(sentences, len(sentences))
    border = round(train_ratio * len(sentences))
    if not 0 < border < len(sentences):
        raise ValueError(f"--train_ratio {train_ratio} of {len(sentences)} sentences leaves one part empty")
    return shuffled[:border], shuffled[border:]


def cut(sentence: Sentence, tokenizer: PreTrainedTokenizerBase, names: list[str], args: argparse.Namespace) -> Example:
    """Split words into pieces (Kelton -> kel ##ton), and assign each label to the first piece or to all pieces."""
    words, labels = sentence
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=args.max_length)
    word_ids = encoded.word_ids()  # word index of each piece; None for special tokens
    first_pieces = [word_ids.index(word) if word in word_ids else None for word in range(len(words))]
    ids, targets, special = encoded["input_ids"], [IGNORED] * len(word_ids), set(tokenizer.all_special_ids)
    for place, word in enumerate(word_ids):
        if word is not None and ids[place] in special:  # a word "[SEP]" in the text
            ids[place] = tokenizer.unk_token_id
        if word is not None and (place == first_pieces[word] or args.label_pieces == "all"):
            targets[place] = names.index(labels[word])
    return Example(torch.tensor(ids), torch.tensor(targets), first_pieces, labels)


def make_batches(examples: list[Example], size: int, rng: random.Random) -> list[list[Example]]:
    """Group examples of similar length, to reduce padding, in random order."""
    ordered = sorted(rng.sample(examples, len(examples)), key=lambda example: len(example.ids))
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return rng.sample(batches, len(batches))


def pad(rows: list[Tensor], filler: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler).to(DEVICE)  # (B, T)


class BertNERModel(nn.Module):
    def __init__(self, encoder: str, labels: list[str]) -> None:
        super().__init__()
        self.labels = labels
        if is_without_weights(encoder):
            self.encoder = AutoModel.from_config(AutoConfig.from_pretrained(encoder))
        else:
            self.encoder = AutoModel.from_pretrained(encoder, dtype=torch.float32)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, len(labels))

    def forward(self, batch: list[Example]) -> Tensor:
        ids = pad([example.ids for example in batch], filler=0)  # (B, T)
        mask = pad([torch.ones_like(example.ids) for example in batch], filler=0)  # (B, T), 0 for padding
        vectors = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, H)
        return self.classifier(vectors)  # (B, T, C)


def is_without_weights(encoder: str) -> bool:
    """Whether an encoder is a folder without weights, to be trained from scratch."""
    return Path(encoder).is_dir() and not [*Path(encoder).glob("*.safetensors"), *Path(encoder).glob("*.bin")]


def train(model: BertNERModel, train_set: list[Example], dev_set: list[Example], args: argparse.Namespace) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    rng, step = random.Random(args.seed), 0
    for epoch in range(1, args.epochs + 1):
        progress = tqdm(make_batches(train_set, args.batch_size, rng), desc=f"epoch {epoch}", unit="step")
        for batch in progress:
            model.train()
            targets = pad([example.targets for example in batch], filler=IGNORED)  # (B, T)
            loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            progress.set_postfix(loss=f"{loss.item():.4f}")
            if step % args.check_step == 0 or step == epoch * len(progress):
                precision, recall, f1 = evaluate(model, dev_set, args.batch_size)
                tqdm.write(f"step {step}: precision {precision:.4f}, recall {recall:.4f}, F1 {f1:.4f}")
        checkpoint = {"encoder": args.model, "labels": model.labels, "weights": model.state_dict()}
        torch.save(checkpoint, args.output_dir / f"epoch-{epoch}.pt")


@torch.no_grad()
def evaluate(model: BertNERModel, examples: list[Example], batch_size: int) -> tuple[float, float, float]:
    model.eval()
    gold, predicted = [], []
    for batch in make_batches(examples, batch_size, random.Random(0)):
        for example, best in zip(batch, model(batch).argmax(dim=-1).tolist(), strict=True):
            gold.append(example.labels)
            # The first piece determines the label of its word. A lost word is O, so its entity counts as missed.
            predicted.append(["O" if place is None else model.labels[best[place]] for place in example.first_pieces])
    return score(gold, predicted)


def score(gold: list[list[str]], predicted: list[list[str]]) -> tuple[float, float, float]:
    """Precision, recall and F1; an entity is correct if its first word, last word and type are. It starts with B-."""
    return precision_recall_fscore_support(gold, predicted, average="micro", scheme=IOB2, zero_division=0)[:3]


def parse_arguments() -> argparse.Namespace:
    sample = Path(__file__).resolve().parent / "datasets" / "sample"
    parser = argparse.ArgumentParser(description="Train an encoder and a linear layer for named entity recognition.")
    parser.add_argument("--data", type=Path, default=sample / "sentences.json", help="labelled sentences")
    parser.add_argument("--model", default=str(sample / "encoder"), help="encoder: a folder, or a name on the hub")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bert_ner"), help="folder for checkpoints")
    parser.add_argument("--train_ratio", type=float, default=0.8, help="fraction of sentences used for training")
    parser.add_argument("--label_pieces", choices=["first", "all"], default="first", help="pieces of a word to label")
    parser.add_argument("--max_length", type=int, default=256, help="pieces per sentence; further words are lost")
    parser.add_argument("--batch_size", type=int, default=32, help="sentences per step")
    parser.add_argument("--epochs", type=int, help="passes over the data (default: 5, or 20 from scratch)")
    parser.add_argument("--learning_rate", type=float, help="learning rate (default: 5e-5, or 1e-3 from scratch)")
    parser.add_argument("--check_step", type=int, default=200, help="evaluate every N steps")
    parser.add_argument("--seed", type=int, default=42, help="random seed")
    from_scratch = is_without_weights(parser.parse_known_args()[0].model)
    parser.set_defaults(epochs=20 if from_scratch else 5, learning_rate=1e-3 if from_scratch else 5e-5)
    args = parser.parse_args()
    if min(args.max_length - 2, args.batch_size, args.epochs, args.check_step) < 1:  # [CLS] and [SEP] take two pieces
        parser.error("--batch_size, --epochs and --check_step must be at least 1, --max_length at least 3")
    return args


def main() -> None:
    args = parse_arguments()
    enable_full_determinism(args.seed, warn_only=True)
    sentences = read_sentences(args.data)
    labels = sorted({label for _, labels in sentences for label in labels})
    tokenizer = AutoTokenizer.from_pretrained(args.model, add_prefix_space=True)  # words are passed without spaces
    args.max_length = min(args.max_length, tokenizer.model_max_length)
    parts = split(sentences, args.train_ratio, args.seed)
    train_set, dev_set = ([cut(sentence, tokenizer, labels, args) for sentence in part] for part in parts)
    for name, examples in (("train", train_set), ("dev", dev_set)):
        places = [place for example in examples for place in example.first_pieces]
        print(f"{name}: {len(examples)} sentences, {len(places)} words, {places.count(None)} lost", flush=True)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    train(BertNERModel(args.model, labels).to(DEVICE), train_set, dev_set, args)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"bert_ner.py: error: {error}") from error
