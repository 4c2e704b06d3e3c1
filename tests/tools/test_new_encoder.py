"""New encoders without weights."""

import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from tools.new_encoder import main, write_encoder


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "my_vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nanna\nAnna\n", "utf-8")
    return path


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["new_encoder.py", *argv])
    main()


def test_it_writes_config_and_tokenizer_and_no_weights(
    vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    sizes = ("--layers=3", "--width=128", "--max_positions=77")
    call(monkeypatch, f"--vocab={vocab}", f"--output_dir={folder}", *sizes)
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 3, 128)
    assert (config.num_attention_heads, config.intermediate_size) == (2, 512)
    assert (config.vocab_size, config.max_position_embeddings) == (7, 77)
    assert not list(folder.glob("*.safetensors")) + list(folder.glob("*.bin"))
    assert "--from_scratch" in capsys.readouterr().out


@pytest.mark.parametrize(("cased", "pieces"), [(False, ["anna"]), (True, ["Anna"])])
def test_its_tokenizer_keeps_case_or_not(vocab: Path, tmp_path: Path, cased: bool, pieces: list[str]) -> None:
    write_encoder(tmp_path / "encoder", vocab, layers=1, width=64, cased=cased)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    assert tokenizer.tokenize("Anna") == pieces
    assert tokenizer("anna")["input_ids"] == [2, 5, 3]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--vocab=none.txt", "none.txt: there is no such file"),
        ("--width=100", "--width 100"),
        ("--width=0", "--width 0: must be a whole number, at least 1"),
        ("--layers=-1", "--layers -1: must be a whole number, at least 1"),
        ("--max_positions=0", "--max_positions 0: must be a whole number, at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    vocab: Path,
    tmp_path: Path,
    argument: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}", argument)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my_vocab.txt: no word pieces in this file"),
        (b"[UNK]\nM\xfcller\n", "my_vocab.txt:2: not UTF-8"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(
    vocab: Path,
    content: bytes,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vocab.write_bytes(content)
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    assert message in capsys.readouterr().err


def test_a_piece_that_is_listed_twice_leaves_no_id_without_embedding(
    vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab.write_text(vocab.read_text("utf-8") + "twice\ntwice\nlast\n", "utf-8")
    call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    ids = AutoTokenizer.from_pretrained(tmp_path / "encoder").get_vocab()
    assert max(ids["twice"], ids["last"]) < AutoConfig.from_pretrained(tmp_path / "encoder").vocab_size


@pytest.mark.parametrize("weights", ["encoder", "encoder/model.safetensors"])
def test_nothing_is_written_over_weights_or_a_file(
    vocab: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / weights).parent.mkdir(exist_ok=True)
    (tmp_path / weights).touch()
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    assert "is a file, or already has weights" in capsys.readouterr().err
    assert not (tmp_path / "encoder" / "config.json").exists()
