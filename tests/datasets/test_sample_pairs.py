"""The bundled pairs are what their generator writes and what their README says, and no bag of words solves them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoConfig, AutoTokenizer

from lightning_runs.glue_data import GLUE_TASKS, GlueCorpus

SAMPLE = Path(__file__).resolve().parents[2] / "datasets" / "sample_pairs"
FILES = [
    "train.tsv",
    "dev.tsv",
    "test.tsv",
    *(f"encoder/{name}" for name in ("config.json", "tokenizer_config.json", "vocab.txt")),
]


def read(split: str) -> tuple[list[tuple[str, ...]], list[float | None]]:
    examples = GlueCorpus(GLUE_TASKS["mrpc"], str(SAMPLE)).read(split).examples
    return [example.texts for example in examples], [example.label for example in examples]


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLE / "generate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_generator_reproduces_every_byte(tmp_path: Path) -> None:
    assert generate("--output_dir", tmp_path).returncode == 0
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
    assert generate("--check").returncode == 0
    (tmp_path / "dev.tsv").write_text("Quality\n", "utf-8")
    result = generate("--check", "--output_dir", tmp_path)
    assert result.returncode == 1
    assert "dev.tsv" in result.stderr
    assert "train.tsv" not in result.stderr


def test_readme_states_the_counts() -> None:
    readme = (SAMPLE / "README.md").read_text("utf-8")
    for split in ("train", "dev", "test"):
        texts, labels = read(split)
        same = f"{int(sum(filter(None, labels))):,}" if split != "test" else ""
        assert re.search(rf"\| `{split}\.tsv` \| {len(texts):,} \| {same} ?\|", readme)


def test_no_pair_is_repeated_and_no_pair_repeats_its_sentence() -> None:
    pairs = [pair for split in ("train", "dev", "test") for pair in read(split)[0]]
    assert len(set(pairs)) == len(pairs)
    assert all(first != second for first, second in pairs)


def test_words_alone_reach_what_the_readme_says() -> None:
    (train, labels), (dev, gold) = read("train"), read("dev")
    vectors = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000, C=10).fit(vectors.fit_transform(map(" ".join, train)), labels)
    accuracy = model.score(vectors.transform(map(" ".join, dev)), gold)
    said = re.search(r"has an accuracy of (\d\.\d\d) on dev", (SAMPLE / "README.md").read_text("utf-8"))
    assert said is not None
    assert accuracy == pytest.approx(float(said[1]), abs=0.01)


def test_the_encoder_knows_all_words() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE / "encoder")
    assert len(tokenizer) == AutoConfig.from_pretrained(SAMPLE / "encoder").vocab_size
    for split in ("train", "dev", "test"):
        for pair in read(split)[0]:
            assert tokenizer.unk_token_id not in tokenizer(*pair)["input_ids"]
