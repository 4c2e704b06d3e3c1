"""The bundled sample corpus is what its generator writes and what its README says, and no lookup table solves it."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoConfig, AutoTokenizer

SAMPLE = Path(__file__).resolve().parents[2] / "datasets" / "sample"
SPLITS = ("train", "dev", "test")
TYPES = ("PER", "LOC", "ORG", "PRO", "TIME")
FILES = (
    ["sentences.json"]
    + [f"{split}.txt" for split in SPLITS]
    + [f"encoder/{name}" for name in ("config.json", "tokenizer_config.json", "vocab.txt")]
)

Sentence = tuple[tuple[str, ...], tuple[str, ...]]  # words, tags
Tagger = Callable[[tuple[str, ...]], list[str]]


@cache
def read(split: str) -> list[Sentence]:
    sentences = []
    for block in (SAMPLE / f"{split}.txt").read_text(encoding="utf-8").removesuffix("\n\n").split("\n\n"):
        words, tags = zip(*(line.split(" ") for line in block.split("\n")), strict=True)
        sentences.append((words, tags))
    return sentences


def mentions(split: str) -> list[tuple[tuple[str, ...], str]]:
    """The surface and the type of every entity."""
    return [
        (words[start : end + 1], entity_type)
        for words, tags in read(split)
        for entity_type, start, end in get_entities(list(tags))
    ]


def is_english(sentence: Sentence) -> bool:
    return all(word.isascii() for word in sentence[0])


def unseen_share(split: str) -> float:
    known = {surface for surface, _ in mentions("train")}
    surfaces = [surface for surface, _ in mentions(split)]
    return sum(surface not in known for surface in surfaces) / len(surfaces)


# ------------------------------------------------------------------------------------------------------------ baselines


def most_frequent_tag() -> Tagger:
    """Each word gets the tag that it has most often in train, an unknown word O."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in read("train"):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    table = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    return lambda words: [table.get(word, "O") for word in words]


def longest_match() -> Tagger:
    """From left to right, the longest surface that is an entity in train, with its most frequent type."""
    counts: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for surface, entity_type in mentions("train"):
        counts[surface][entity_type] += 1
    table = {surface: count.most_common(1)[0][0] for surface, count in counts.items()}
    longest = max(map(len, table))

    def tag(words: tuple[str, ...]) -> list[str]:
        tags: list[str] = []
        while (start := len(tags)) < len(words):
            ends = range(min(start + longest, len(words)), start, -1)
            end = next((end for end in ends if words[start:end] in table), None)
            if end is None:
                tags.append("O")
            else:
                entity_type = table[words[start:end]]
                tags += [f"B-{entity_type}"] + [f"I-{entity_type}"] * (end - start - 1)
        return tags

    return tag


def f1(tagger: Tagger, split: str) -> float:
    gold = [list(tags) for _, tags in read(split)]
    return float(f1_score(gold, [tagger(words) for words, _ in read(split)]))


# ---------------------------------------------------------------------------------------------------------------- tests


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLE / "generate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_generator_reproduces_every_byte(tmp_path: Path) -> None:
    assert generate("--output_dir", tmp_path).returncode == 0
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
    assert generate("--check").returncode == 0


def test_check_names_the_file_that_differs(tmp_path: Path) -> None:
    generate("--output_dir", tmp_path)
    (tmp_path / "dev.txt").write_text("Apple B-ORG\n\n", encoding="utf-8")
    result = generate("--check", "--output_dir", tmp_path)
    assert result.returncode == 1
    assert "dev.txt" in result.stderr
    assert "train.txt" not in result.stderr


def test_the_json_object_holds_the_first_sentences_of_train() -> None:
    entries = json.loads((SAMPLE / "sentences.json").read_text(encoding="utf-8"))
    sentences = [(tuple(entry["sents"].split()), tuple(entry["ner_labels"].split())) for entry in entries.values()]
    assert sentences == read("train")[:1500]
    assert list(entries) == [str(number) for number in range(1500)]


@pytest.mark.parametrize("split", SPLITS)
def test_tags_are_iob2(split: str) -> None:
    legal = {"O"} | {f"{prefix}-{entity_type}" for prefix in "BI" for entity_type in TYPES}
    for words, tags in read(split):
        assert set(tags) <= legal
        for previous, tag in zip(("O", *tags), tags, strict=False):
            assert tag[0] != "I" or previous[1:] == tag[1:], words


def test_no_sentence_is_repeated() -> None:
    sentences = [sentence for split in SPLITS for sentence in read(split)]
    assert len(set(sentences)) == len(sentences)


def test_readme_states_the_counts() -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:]
        for cells in (re.findall(r"[^|\s][^|]*[^|\s]", line) for line in readme.splitlines())
        if cells
    }
    for split in SPLITS:
        sentences = read(split)
        types = Counter(entity_type for _, entity_type in mentions(split))
        english = sum(map(is_english, sentences))
        tokens = sum(len(words) for words, _ in sentences)
        counts = [
            len(sentences),
            english,
            len(sentences) - english,
            tokens,
            types.total(),
            *(types[name] for name in TYPES),
        ]
        assert rows[f"`{split}.txt`"] == [f"{count:,}" for count in counts]
    for split in ("dev", "test"):
        figures = [
            f"{unseen_share(split):.1%}",
            f"{f1(most_frequent_tag(), split):.3f}",
            f"{f1(longest_match(), split):.3f}",
        ]
        assert rows[split] == figures


@pytest.mark.parametrize("split", ["dev", "test"])
def test_nearly_half_of_the_surfaces_are_unseen(split: str) -> None:
    assert 0.4 <= unseen_share(split) <= 0.5


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("baseline", [most_frequent_tag, longest_match])
def test_lookup_fails(baseline: Callable[[], Tagger], split: str) -> None:
    assert f1(baseline(), split) < 0.6


@pytest.mark.parametrize("surface", ["Apple", "Washington", "May", "长江", "苹果", "元旦"])
def test_one_surface_means_many_things(surface: str) -> None:
    words = (surface,) if surface.isascii() else tuple(surface)
    assert len({entity_type for known, entity_type in mentions("train") if known == words}) >= 3


def test_encoder_spells_unknown_words_in_pieces() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "encoder")
    config = AutoConfig.from_pretrained(SAMPLE / "encoder")
    assert tokenizer.is_fast
    assert len(tokenizer) == config.vocab_size <= 3000
    assert tokenizer.tokenize("Nantworth") == ["n", "##a", "##nt", "##w", "##orth"]
    for split in ("dev", "test"):
        words = {word for words, _ in read(split) for word in words}
        assert not [word for word in words if tokenizer.unk_token in tokenizer.tokenize(word)]


def test_the_folder_does_not_hide_the_datasets_package() -> None:
    for folder in (SAMPLE.parent, Path(__file__).parent):
        assert not list(folder.rglob("__init__.py"))
