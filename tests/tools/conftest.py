"""Two trained runs that the tests of the machinery share, and a clean logging set-up around each test."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import write_corpus
from tests.tools.runs import Run, call_script, options_of_run


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Scripts set logging up for their process; here it is set back."""
    root, names = logging.getLogger(), ("callbacks", "models", "processors", "tools")
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
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def crf_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A CRF trained, scored and applied by its script, with checkpoints on the way."""
    return _run("run_ner_crf", encoder, tmp_path_factory.mktemp("crf_run"))


@pytest.fixture(scope="session")
def softmax_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with a softmax head."""
    return _run("run_ner_softmax", encoder, tmp_path_factory.mktemp("softmax_run"))


def _run(script: str, encoder: Path, home: Path) -> Run:
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    options = options_of_run(encoder, corpus, home)
    steps = {"do_train": True, "from_scratch": True, "save_steps": 16, "num_train_epochs": 6.0}
    actions = {"do_eval": True, "do_predict": True, "eval_all_checkpoints": True, "predict_checkpoints": "all"}
    call_script(script, **options, **steps, **actions, log_loss_steps=4)
    return Run(script, home / "run", options)
