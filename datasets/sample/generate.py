"""Write the sample corpus and its small encoder: a synthetic, bilingual corpus for named entity recognition.

    python datasets/sample/generate.py                     # write the files beside this script
    python datasets/sample/generate.py --output_dir DIR    # write them elsewhere
    python datasets/sample/generate.py --check             # are the files beside this script what it would write?

The sentences come from the two grammars in `grammar/`, whose notation the README explains. Names are drawn before
sentences: common ones that every split repeats, rare ones for train alone, and new ones for dev and for test, in part
made of pieces that no name in train has. The same short names serve people, places, companies and products, so that
only the context tells which one is meant.

The output depends on the seeds and the grammars alone: the same bytes on every platform and every Python from 3.10.
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
TUTORIAL = 1500  # sentences of train that `bert_ner.py` has as one JSON object
SHARED_NAMES = 90  # short names that all kinds of mention share: few, so that each one comes to mean several things
COMMON = 120  # draws per kind of mention of the names that all splits repeat,
RARE = 250  # of those that only train has,
NEW = 110  # and of those that dev has, and test has, for itself
HELD_OUT_EVERY = 3  # of a list marked `~`, every third entry is kept from the names in train

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD_MIN_COUNT = 5  # of a word in lower case; names are spelled in pieces, so that those of unknown names are learnt
SUFFIX_LENGTHS = (2, 3, 4)
SUFFIX_COUNT = 100

Rules = dict[str, list[str]]  # symbol -> its alternatives
Sentence = tuple[tuple[str, str], ...]  # (token, tag) pairs


# -------------------------------------------------------------------------------------------------------------- grammar


def read_grammar(language: str, held_out: bool) -> Rules:
    """Read a grammar: `[symbol]` heads its alternatives, set apart by ` | ` or line ends; ` *n` repeats one n times.

    Lists marked `[symbol ~]` are cut in two: the part that names in train are made of, and the one that is `held_out`.
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
    """Choose an alternative of `symbol`, and expand every `<symbol>` in it in turn."""
    return re.sub(r"<([^<>]+)>", lambda slot: expand(rules, slot[1], rng), rng.choice(rules[symbol]))


def draw(rules: Rules, symbol: str, count: int, rng: Random) -> list[str]:
    """The distinct results of `count` expansions, in the order in which they came."""
    return list(dict.fromkeys(expand(rules, symbol, rng) for _ in range(count)))


def is_mention(symbol: str) -> bool:
    """Whether a symbol stands for an entity: `PER`, or one of its forms, such as `PER.full`."""
    return symbol[0].isupper()


def draw_mentions(rules: Rules, count: int, rng: Random) -> Rules:
    """For every kind of mention, surfaces that sentences can name: the distinct ones among `count` draws."""
    return {symbol: draw(rules, symbol, count, rng) for symbol in rules if is_mention(symbol)}


# ------------------------------------------------------------------------------------------------------------ sentences


def tag(text: str, language: str) -> Sentence:
    """Cut text with `{TYPE surface}` mentions into tokens with IOB2 tags: words in English, characters in Chinese."""
    pairs: list[tuple[str, str]] = []
    for entity_type, surface, plain in re.findall(r"\{(\w+) ([^{}]+)\}|([^{}]+)", text):
        tokens = (surface or plain).split() if language == "english" else list(surface or plain)
        tags = [f"B-{entity_type}"] + [f"I-{entity_type}"] * (len(tokens) - 1) if surface else ["O"] * len(tokens)
        pairs += zip(tokens, tags, strict=True)
    return tuple(pairs)


def capitalise(text: str) -> str:
    """Raise the first letter of a sentence, which may stand behind a quotation mark or open a mention."""
    return re.sub(r'^((?:" )?(?:\{\w+ )?)([a-z])', lambda start: start[1] + start[2].upper(), text)


def write_sentences(language: str, world: Rules, count: int, seen: set[Sentence], rng: Random) -> list[Sentence]:
    """Draw `count` sentences about a world, none of them in `seen`, which grows by them."""
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
    """All splits, each a shuffled mixture of both languages."""
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
    """One `token TAG` a line, a blank line after every sentence."""
    return "".join("".join(f"{token} {label}\n" for token, label in sentence) + "\n" for sentence in sentences)


def as_object(sentences: list[Sentence]) -> str:
    """One JSON object, a sentence a line: `"0": {"sents": "token token", "ner_labels": "TAG TAG"}`."""
    entries = []
    for number, sentence in enumerate(sentences):
        tokens, tags = zip(*sentence, strict=True)
        entry = json.dumps({"sents": " ".join(tokens), "ner_labels": " ".join(tags)}, ensure_ascii=False)
        entries.append(f'"{number}": {entry}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


# -------------------------------------------------------------------------------------------------------------- encoder


def make_vocabulary(sentences: list[Sentence]) -> list[str]:
    """A WordPiece vocabulary: every character, the frequent words, and the suffixes that most other words share."""
    tokens = Counter(token for sentence in sentences for token, _ in sentence)
    alphanumeric = string.ascii_lowercase + string.digits
    characters = sorted({*alphanumeric, *string.punctuation, *"".join(tokens).lower()})
    continuations = [f"##{character}" for character in alphanumeric]  # the tokenizer cuts at all other characters
    words = {token for token in tokens if len(token) > 1 and token.isascii() and token.isalpha()}
    frequent = {word for word in words if word.islower() and tokens[word] >= WORD_MIN_COUNT}
    rare = {word.lower() for word in words} - frequent
    suffixes = Counter(f"##{word[-length:]}" for word in rare for length in SUFFIX_LENGTHS if length < len(word))
    shared = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix))[:SUFFIX_COUNT]
    return [*SPECIAL_TOKENS, *characters, *continuations, *sorted(frequent), *sorted(shared)]


def make_encoder(sentences: list[Sentence]) -> dict[str, str]:
    """The files of a small BERT without weights, to be trained from scratch."""
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
    """Everything that is checked in: relative path -> content."""
    corpus = make_corpus()
    files = {f"{split}.txt": as_columns(sentences) for split, sentences in corpus.items()}
    files["sentences.json"] = as_object(corpus["train"][:TUTORIAL])
    return {path: text.encode() for path, text in (files | make_encoder(corpus["train"])).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample corpus and its small encoder.")
    parser.add_argument("--output_dir", type=Path, default=HERE, help="where to write (default: beside this script)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files there differ")
    args = parser.parse_args()

    files = {args.output_dir / path: content for path, content in make_files().items()}
    if args.check:
        stale = [str(path) for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
        sys.exit(f"not what the grammars say: {', '.join(stale)}" if stale else 0)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
