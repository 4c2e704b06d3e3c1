"""Generate the sample corpus and its small encoder: a synthetic, bilingual corpus for named entity recognition.

    python datasets/sample/generate.py                     # write the files next to this script
    python datasets/sample/generate.py --output_dir DIR    # write them elsewhere
    python datasets/sample/generate.py --check             # check that these files are up to date

Sentences are generated from the two grammars in `grammar/`; the README explains their notation. Names are drawn first:
common names that occur in every split, rare names for train only, and new names for dev and test, some of them made of
parts that do not occur in train. People, places, companies and products share short names, so that only the context
determines the type.

The output depends only on the seeds and the grammars, and is byte-identical on all platforms with Python 3.10 or later.
"""

import argparse
import json
import re
import string
import sys
from collections import Counter
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
LANGUAGES = ("english", "chinese")
SPLITS = {"train": 3000, "dev": 600, "test": 600}  # sentences, half of them in each language
TUTORIAL = 1500  # train sentences in the JSON file for `bert_ner.py`
SHARED_NAMES = 90  # short names shared by all kinds of mention; few, so that each gets several types
COMMON = 120  # draws per kind of mention of names that occur in all splits
RARE = 250  # of names that occur in train only
NEW = 110  # of names that occur in dev or test only
HELD_OUT_EVERY = 3  # every third entry of a list marked `~` is held out from train

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD_MIN_COUNT = 5  # for lower-case words; names are split into pieces, so that the pieces of unknown names are learnt
SUFFIX_LENGTHS = (2, 3, 4)
SUFFIX_COUNT = 100

Rules = dict[str, list[str]]  # symbol -> alternatives
Sentence = tuple[tuple[str, str], ...]  # (token, tag) pairs


# -------------------------------------------------------------------------------------------------------------- grammar


def read_grammar(language: str, held_out: bool) -> Rules:
    """Read a grammar: `[symbol]`, then its alternatives, separated by ` | ` or line ends; ` *n` is a weight.

    Lists marked `[symbol ~]` are split into a part for train and a part that is `held_out`.
    """
    rules: Rules = {}
    divided: list[str] = []
    for line in (HERE / "grammar" / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        if head := re.fullmatch(r"\[(\S+)( ~)?\]", line):
            alternatives = rules[head[1]] = []
            if head[2]:
                divided.append(head[1])
        elif line and not line.startswith("#"):
            for alternative in line.split(" | "):
                text, _, weight = alternative.partition(" *")
                alternatives += [text] * int(weight or 1)
    for symbol in divided:
        unseen = rules[symbol][HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        rules[symbol] = unseen if held_out else [entry for entry in rules[symbol] if entry not in unseen]
    return rules


def expand(rules: Rules, symbol: str, rng: Random) -> str:
    """Choose an alternative of `symbol`, and expand every `<symbol>` in it recursively."""
    return re.sub(r"<([^<>]+)>", lambda slot: expand(rules, slot[1], rng), rng.choice(rules[symbol]))


def draw(rules: Rules, symbol: str, count: int, rng: Random) -> list[str]:
    """Expand a symbol `count` times, and return the distinct results in order."""
    return list(dict.fromkeys(expand(rules, symbol, rng) for _ in range(count)))


def is_mention(symbol: str) -> bool:
    """Whether a symbol is an entity type such as `PER`, or a form of it such as `PER.full`."""
    return symbol[0].isupper()


def draw_mentions(rules: Rules, count: int, rng: Random) -> Rules:
    """Draw `count` names for every kind of mention, without duplicates."""
    return {symbol: draw(rules, symbol, count, rng) for symbol in rules if is_mention(symbol)}


# ------------------------------------------------------------------------------------------------------------ sentences


def tag(text: str, language: str) -> Sentence:
    """Split text with `{TYPE surface}` mentions into IOB2-tagged tokens: words in English, characters in Chinese."""
    pairs: list[tuple[str, str]] = []
    for entity_type, surface, plain in re.findall(r"\{(\w+) ([^{}]+)\}|([^{}]+)", text):
        tokens = (surface or plain).split() if language == "english" else list(surface or plain)
        tags = [f"B-{entity_type}"] + [f"I-{entity_type}"] * (len(tokens) - 1) if surface else ["O"] * len(tokens)
        pairs += zip(tokens, tags, strict=True)
    return tuple(pairs)


def capitalise(text: str) -> str:
    """Capitalise the first letter of a sentence, which may follow a quotation mark or start a mention."""
    return re.sub(r'^((?:" )?(?:\{\w+ )?)([a-z])', lambda start: start[1] + start[2].upper(), text)


def write_sentences(language: str, world: Rules, count: int, seen: set[Sentence], rng: Random) -> list[Sentence]:
    """Generate `count` sentences with the names of `world`; skip sentences in `seen`, and add the new ones to it."""
    rules = read_grammar(language, held_out=False)
    for symbol, surfaces in world.items():
        entity_type = symbol.partition(".")[0]
        rules[symbol] = [f"{{{entity_type} {surface}}}" for surface in surfaces]
    sentences: list[Sentence] = []
    while len(sentences) < count:
        sentence = tag(capitalise(expand(rules, "sentence", rng)), language)
        if sentence not in seen:
            seen.add(sentence)
            sentences.append(sentence)
    return sentences


def make_corpus() -> dict[str, list[Sentence]]:
    """Generate all splits, each a shuffled mixture of both languages."""
    corpus: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
    seen: set[Sentence] = set()
    for language in LANGUAGES:
        rng = Random(language)
        rules = read_grammar(language, held_out=False)
        shared = {"name": draw(rules, "name", SHARED_NAMES, rng)}
        common = draw_mentions(rules | shared, COMMON, rng)
        rare = draw_mentions(rules, RARE, rng)
        known = {surface for surfaces in (*common.values(), *rare.values()) for surface in surfaces}
        for split, count in SPLITS.items():
            own = rare
            if split != "train":
                new = draw_mentions(read_grammar(language, held_out=True), NEW, rng)
                own = {symbol: [surface for surface in new[symbol] if surface not in known] for symbol in new}
            world = {symbol: common[symbol] + own[symbol] for symbol in common}
            corpus[split] += write_sentences(language, world, count // len(LANGUAGES), seen, rng)
    for split, sentences in corpus.items():
        Random(split).shuffle(sentences)
    return corpus


def as_columns(sentences: list[Sentence]) -> str:
    """Format as one `token TAG` per line, with a blank line after every sentence."""
    return "".join("".join(f"{token} {label}\n" for token, label in sentence) + "\n" for sentence in sentences)


def as_object(sentences: list[Sentence]) -> str:
    """Format as one JSON object, one sentence per line: `"0": {"sents": "token token", "ner_labels": "TAG TAG"}`."""
    entries = []
    for number, sentence in enumerate(sentences):
        tokens, tags = zip(*sentence, strict=True)
        entry = json.dumps({"sents": " ".join(tokens), "ner_labels": " ".join(tags)}, ensure_ascii=False)
        entries.append(f'"{number}": {entry}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


# -------------------------------------------------------------------------------------------------------------- encoder


def make_vocabulary(sentences: list[Sentence]) -> list[str]:
    """Build a WordPiece vocabulary of all characters, frequent words, and common suffixes of the other words."""
    tokens = Counter(token for sentence in sentences for token, _ in sentence)
    alphanumeric = string.ascii_lowercase + string.digits
    characters = sorted({*alphanumeric, *string.punctuation, *"".join(tokens).lower()})
    continuations = [f"##{character}" for character in alphanumeric]  # the tokenizer splits at all other characters
    words = {token for token in tokens if len(token) > 1 and token.isascii() and token.isalpha()}
    frequent = {word for word in words if word.islower() and tokens[word] >= WORD_MIN_COUNT}
    rare = {word.lower() for word in words} - frequent
    suffixes = Counter(f"##{word[-length:]}" for word in rare for length in SUFFIX_LENGTHS if length < len(word))
    shared = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix))[:SUFFIX_COUNT]
    return [*SPECIAL_TOKENS, *characters, *continuations, *sorted(frequent), *sorted(shared)]


def make_encoder(sentences: list[Sentence]) -> dict[str, str]:
    """Make the files of a small BERT without weights, for training from scratch."""
    vocabulary = make_vocabulary(sentences)
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
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": vocabulary.index("[PAD]"),
    }
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    return {
        "encoder/config.json": json.dumps(config, indent=2) + "\n",
        "encoder/tokenizer_config.json": json.dumps(tokenizer_config, indent=2) + "\n",
        "encoder/vocab.txt": "".join(f"{entry}\n" for entry in vocabulary),
    }


# ---------------------------------------------------------------------------------------------------------------- files


def make_files() -> dict[str, bytes]:
    """Generate all files: relative path -> content."""
    corpus = make_corpus()
    files = {f"{split}.txt": as_columns(sentences) for split, sentences in corpus.items()}
    files["sentences.json"] = as_object(corpus["train"][:TUTORIAL])
    return {path: text.encode() for path, text in (files | make_encoder(corpus["train"])).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample corpus and its small encoder.")
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
