"""Write the sample of sentence pairs and its small encoder: synthetic English, in the layout of GLUE's MRPC.

    python datasets/sample_pairs/generate.py                     # write the files beside this script
    python datasets/sample_pairs/generate.py --output_dir DIR    # write them elsewhere
    python datasets/sample_pairs/generate.py --check             # are the files beside this script what it would write?

Each pair is two reports of one event, in different words and another order. They say the same where both verbs are of
one side of their topic (rose, climbed), and the contrary where they are of two (rose, fell). No word tells which: every
verb is in pairs of either kind, though verbs of the first side say the same more often, which is where learning starts.

The output depends on the seed and the lists below alone: the same bytes on every platform and every Python from 3.10.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
SPLITS = {"train": 2400, "dev": 400, "test": 400}  # pairs, half of which say the same
SECOND_SIDE = 0.3  # share of the second side's verbs in pairs that say the same
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Topic:
    """What is reported of whom, in verbs of two sides."""

    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    sides: tuple[tuple[str, ...], tuple[str, ...]]


TOPICS = (
    Topic(
        subjects=("shares of", "prices of", "sales of", "exports of"),
        objects=("steel", "coffee", "paper", "wheat", "copper", "cotton", "cars", "wine"),
        sides=(("rose", "climbed", "grew", "jumped", "gained"), ("fell", "dropped", "sank", "slipped", "declined")),
    ),
    Topic(
        subjects=("the council", "the board", "the court", "the union", "the ministry"),
        objects=("the plan", "the offer", "the budget", "the treaty", "the appeal", "the merger"),
        sides=(("accepted", "approved", "backed", "welcomed"), ("rejected", "refused", "opposed", "blocked")),
    ),
    Topic(
        subjects=("the team", "the city", "the captain", "the school", "the village"),
        objects=("the final", "the match", "the contest", "the race", "the election"),
        sides=(("won", "took", "dominated"), ("lost", "missed", "abandoned")),
    ),
)
PLACES = ("in the north", "in the south", "near the coast", "across the region", "at home", "abroad")
TIMES = ("on monday", "on friday", "last week", "last month", "this year", "in may", "in october", "yesterday")
ORDERS = (
    "{what} {place} {time} .",
    "{time} , {what} {place} .",
    "{place} , {what} {time} .",
    "officials said {time} that {what} {place} .",
    "{what} {time} , reports {place} said .",
)

Pair = tuple[int, str, str]  # 1 where both say the same, and the two sentences


# ---------------------------------------------------------------------------------------------------------------- pairs


def sentence(order: str, subject: str, verb: str, target: str, place: str, time: str) -> str:
    what = f"{subject} {target} {verb}" if subject.endswith(" of") else f"{subject} {verb} {target}"
    return order.format(what=what, place=place, time=time)


def make_pair(same: bool, rng: Random) -> Pair:
    """Two reports of one event, in verbs of one side or of both, and in two different orders."""
    topic = rng.choice(TOPICS)
    event = {"subject": rng.choice(topic.subjects), "target": rng.choice(topic.objects)}
    event |= {"place": rng.choice(PLACES), "time": rng.choice(TIMES)}
    side = int(rng.random() < (SECOND_SIDE if same else 0.5))
    first = rng.choice(topic.sides[side])
    second = rng.choice([verb for verb in topic.sides[side if same else 1 - side] if verb != first])
    left, right = (
        sentence(order, verb=verb, **event) for order, verb in zip(rng.sample(ORDERS, 2), (first, second), strict=True)
    )
    return int(same), left, right


def make_corpus() -> dict[str, list[Pair]]:
    """All splits, without a pair that occurs twice."""
    rng = Random("sentence pairs")
    seen: set[tuple[str, str]] = set()
    corpus: dict[str, list[Pair]] = {}
    for split, count in SPLITS.items():
        pairs: list[Pair] = []
        while len(pairs) < count:
            pair = make_pair(len(pairs) % 2 == 0, rng)
            if pair[1:] not in seen:
                seen.add(pair[1:])
                pairs.append(pair)
        rng.shuffle(pairs)
        corpus[split] = pairs
    return corpus


def as_table(split: str, pairs: list[Pair], first_id: int) -> str:
    """MRPC's columns; test has the number of the line instead of the answer."""
    lines = [("index" if split == "test" else "Quality") + "\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    for number, (same, first, second) in enumerate(pairs):
        ids = first_id + 2 * number
        lines.append(f"{number if split == 'test' else same}\t{ids}\t{ids + 1}\t{first}\t{second}")
    return "".join(f"{line}\n" for line in lines)


# -------------------------------------------------------------------------------------------------------------- encoder


def make_encoder(pairs: list[Pair]) -> dict[str, str]:
    """The files of a small BERT without weights, to be trained from scratch."""
    words = sorted({word for _, first, second in pairs for word in f"{first} {second}".split()})
    vocabulary = [*SPECIAL_TOKENS, *words]
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 128,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": vocabulary.index("[PAD]"),
    }
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 128}
    return {
        "encoder/config.json": json.dumps(config, indent=2) + "\n",
        "encoder/tokenizer_config.json": json.dumps(tokenizer_config, indent=2) + "\n",
        "encoder/vocab.txt": "".join(f"{entry}\n" for entry in vocabulary),
    }


# ---------------------------------------------------------------------------------------------------------------- files


def make_files() -> dict[str, bytes]:
    """Everything that is checked in: relative path -> content."""
    corpus = make_corpus()
    files, first_id = make_encoder(corpus["train"]), 1
    for split, pairs in corpus.items():
        files[f"{split}.tsv"] = as_table(split, pairs, first_id)
        first_id += 2 * len(pairs)
    return {path: text.encode() for path, text in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample of sentence pairs and its small encoder.")
    parser.add_argument("--output_dir", type=Path, default=HERE, help="where to write (default: beside this script)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files there differ")
    args = parser.parse_args()

    files = {args.output_dir / path: content for path, content in make_files().items()}
    if args.check:
        stale = [str(path) for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
        sys.exit(f"not what the lists say: {', '.join(stale)}" if stale else 0)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
