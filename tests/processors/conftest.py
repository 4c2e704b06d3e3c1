"""Tokenizers of four kinds, and the form of errors that name a place."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, BertTokenizerLegacy, PreTrainedTokenizerBase, RobertaTokenizer

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
def bert(encoder: Path) -> PreTrainedTokenizerBase:
    """Word pieces of the tiny vocabulary."""
    return AutoTokenizer.from_pretrained(encoder)


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


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Byte-level pairs with a space before each word, trained on two sentences."""
    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer(add_prefix_space=True)
    sentences = ["the man said that anna met bob near new york", "big co left paris when he saw it"]
    trained.train_from_iterator(iter(sentences), 320, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    RobertaTokenizer(vocab, merges, add_prefix_space=True).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, add_prefix_space=True)


@pytest.fixture
def bert_uncased(vocab_root: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of bert-base-uncased; use with the mark ``corpora``."""
    from transformers import BertTokenizer

    return BertTokenizer(str(vocab_root / "bert-base-uncased-vocab.txt"))


@pytest.fixture
def xlnet(vocab_root: Path, tmp_path: Path) -> PreTrainedTokenizerBase:
    """An XLNet tokenizer over ALBERT's pieces; use with the mark ``corpora``."""
    folder = tmp_path / "xlnet"
    folder.mkdir()
    shutil.copy(vocab_root / "albert-v2-spiece.model", folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLNetTokenizer"}))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=["bert", "slow_bert", "roberta", pytest.param("xlnet", marks=pytest.mark.corpora)])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Each kind of tokenizer in turn."""
    chosen: PreTrainedTokenizerBase = request.getfixturevalue(request.param)
    return chosen
