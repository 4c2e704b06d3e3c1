"""Generate the sample of sentence pairs and its small encoder: synthetic English, in the layout of GLUE's MRPC.

    python datasets/sample_pairs/generate.py                     # write the files next to this script
    python datasets/sample_pairs/generate.py --output_dir DIR    # write them elsewhere
    python datasets/sample_pairs/generate.py --check             # check that these files are up to date

Each pair consists of two reports of one event, with different verbs and word order. They are paraphrases if both verbs
belong to the same side of their topic (rose, climbed), and contradict each other otherwise (rose, fell). No single word
gives the answer away: every verb occurs in both kinds of pairs, but verbs of the first side are more frequent in
paraphrases, which gives training a starting point.

The output depends only on the seed and the lists below, and is byte-identical on all platforms with Python 3.10 or
later.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
SPLITS = {"train": 2400, "dev": 400, "test": 400}  # pairs, half of them paraphrases
SECOND_SIDE = 0.3  # share of paraphrases that use verbs of the second side
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Topic:
    """Subjects, objects, and verbs of two opposite meanings."""

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

Pair = tuple[int, str, str]  # 1 for paraphrases, else 0, and the two sentences


# ---------------------------------------------------------------------------------------------------------------- pairs


def sentence(order: str, subject: str, verb: str, target: str, place: str, time: str) -> str:
    what = f"{subject} {target} {verb}" if subject.endswith(" of") else f"{subject} {verb} {target}"
    return order.format(what=what, place=place, time=time)


def make_pair(same: bool, rng: Random) -> Pair:
    """Generate two reports of one event in different word orders, with verbs of the same side or of both sides."""
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
    """Generate all splits, without duplicate pairs."""
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
    """Format with the columns of MRPC; test has the line number instead of the label."""
    lines = [("index" if split == "test" else "Quality") + "\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    for number, (same, first, second) in enumerate(pairs):
        ids = first_id + 2 * number
        lines.append(f"{number if split == 'test' else same}\t{ids}\t{ids + 1}\t{first}\t{second}")
    return "".join(f"{line}\n" for line in lines)


# -------------------------------------------------------------------------------------------------------------- encoder


def make_encoder(pairs: list[Pair]) -> dict[str, str]:
    """Make the files of a small BERT without weights, for training from scratch."""
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
    """Generate all files: relative path -> content."""
    corpus = make_corpus()
    files, first_id = make_encoder(corpus["train"]), 1
    for split, pairs in corpus.items():
        files[f"{split}.tsv"] = as_table(split, pairs, first_id)
        first_id += 2 * len(pairs)
    return {path: text.encode() for path, text in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample of sentence pairs and its small encoder.")
    parser.add_argument("--output_dir", type=Path, default=HERE, help="output folder (default: that of this script)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the existing files differ")
    args = parser.parse_args()

    files = {args.output_dir / path: content for path, content in make_files().items()}
    if args.check:
        stale = [str(path) for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
        sys.exit(f"out of date, run generate.py: {', '.join(stale)}" if stale else 0)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
