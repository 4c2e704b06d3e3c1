"""Tokenizers of each kind, and the form of errors that name a place."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from transformers import BertTokenizerLegacy, PreTrainedTokenizerBase

settings.register_profile(
    "processors",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("processors")


@pytest.fixture(scope="session")
def at() -> Callable[..., str]:
    """A pattern for the errors that begin with this file and line and then say all these things, in this order."""

    def pattern(path: Path | str, line: int | None, *said: str) -> str:
        place = f"{path}: " if line is None else f"{path}:{line}: "
        return "(?s)^" + re.escape(place) + "".join(f".*{re.escape(part)}" for part in said)

    return pattern


@pytest.fixture(scope="session")
def slow_bert(encoder: Path) -> PreTrainedTokenizerBase:
    """The same vocabulary, in Python."""
    vocab = [piece for piece, _ in sorted(_vocab(encoder).items(), key=lambda item: item[1])]
    file = encoder / "slow-vocab.txt"
    file.write_text("\n".join(vocab) + "\n", "utf-8")
    return BertTokenizerLegacy(str(file))


def _vocab(encoder: Path) -> dict[str, int]:
    vocab: dict[str, int] = json.loads((encoder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    return vocab


@pytest.fixture
def bert_uncased(vocab_root: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of bert-base-uncased; use with the mark ``corpora``."""
    from transformers import BertTokenizer

    return BertTokenizer(str(vocab_root / "bert-base-uncased-vocab.txt"))


@pytest.fixture(params=["bert", "slow_bert", "roberta", pytest.param("xlnet", marks=pytest.mark.corpora)])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Each kind of tokenizer in turn."""
    chosen: PreTrainedTokenizerBase = request.getfixturevalue(request.param)
    return chosen
