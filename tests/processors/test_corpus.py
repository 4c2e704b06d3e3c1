"""Corpora: counts, labels, bad input, and the real ones against their published counts."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from processors.corpus import Corpus
from processors.examples import DataError
from processors.parsed import Inventory
from tests.tags import iob2

GOOD = "Anna B-PER\nleft O\n\nbig B-ORG\nco I-ORG\n"


@pytest.fixture
def corpus_of(tmp_path: Path) -> Callable[..., Corpus]:
    """A corpus of these files, named by keyword as in ``train="Anna B-PER"``; other keywords go to `Corpus`."""

    def make(task_name: str = "mine", **named: Any) -> Corpus:
        files = {name: named.pop(name) for name in ("train", "dev", "test", "labels") if name in named}
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            (tmp_path / f"{name}.txt").write_bytes(raw)
        return Corpus(task_name, tmp_path, **named)

    return make


MakeCorpus = Callable[..., Corpus]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_records_is_known_by_its_start(corpus_of: MakeCorpus, indent: int | None) -> None:
    content = json.dumps([{"text": "Anna", "label": [[0, 4, "PER"]]}], indent=indent)
    assert corpus_of(train=content).inventory("train").types == {"PER": 1}


@pytest.mark.parametrize("content", ["[ O\nAnna B-PER\n", "[\tO\n{\tO\nAnna\tB-PER\n"])
def test_brackets_may_be_words_in_columns(corpus_of: MakeCorpus, content: str) -> None:
    assert corpus_of(train=content).inventory("train").types == {"PER": 1}


def test_a_split_is_counted(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    inventory = corpus_of(train="-DOCSTART- O\n\n" + GOOD).inventory("train")
    expected = Inventory(str(tmp_path / "train.txt"), sentences=2, words=4, entities=2, scheme="IOB2")
    expected.cut_by = "('auto', ())"
    expected.types = {"PER": 1, "ORG": 1}
    expected.type_lines = {"PER": 3, "ORG": 6}
    expected.continuations = 1
    assert inventory == expected


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-P I-P B-P O", "IOB2"),
        ("I-P I-P B-P O", "IOB1"),
        ("I-P E-P E-P O", "IOE2"),
        ("I-P E-P I-P O", "IOE1"),
        ("B-P E-P S-P O", "BIOES"),
        ("B-P M-P E-P S-P", "BMES"),
        ("B-P L-P U-P O", "BILOU"),
        ("B-P I-P S-P O", "BIOS"),
    ],
)
def test_the_scheme_is_read_off_the_data(corpus_of: MakeCorpus, tags: str, scheme: str) -> None:
    content = "\n".join(f"w {tag}" for tag in tags.split())
    assert corpus_of(train=content).inventory("train").scheme == scheme


def test_illegal_tags_are_counted_and_read_as_conlleval_reads_them(corpus_of: MakeCorpus) -> None:
    inventory = corpus_of(train=GOOD * 3 + "\nhe O\nleft I-LOC\n\nbig B-ORG\nco I-PER\n").inventory("train")
    assert (inventory.scheme, inventory.entities) == ("IOB2", 9)
    assert (inventory.illegal_transitions, inventory.first_illegal_line) == (2, 18)


def test_an_illegal_end_is_found_on_the_last_line_of_its_sentence(corpus_of: MakeCorpus) -> None:
    inventory = corpus_of(train="a B-X\nb E-X\n\nc O\nd B-X\n\ne S-X\n").inventory("train")
    assert (inventory.illegal_transitions, inventory.first_illegal_line) == (1, 5)


def test_mixed_schemes_are_refused_with_lines(corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str]) -> None:
    said = ("B, E, I, M do not belong to one tag scheme", "B first on line 1", "I first on line 5", "M first on line 2")
    with pytest.raises(
        DataError, match=at(tmp_path / "train.txt", None, *said, "convert the file to one of", "BMES: B/M/E/S")
    ):
        corpus_of(train="a B-X\nb M-X\nc E-X\n\nd I-X\ne M-X\n").inventory("train")


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name in ("train.txt", "train.json") for content in ("", "\n\n", "\ufeff")]
    + [("train.txt", "-DOCSTART- O\n\n"), ("train.json", "{}")],
)
def test_a_file_without_sentences_is_refused(tmp_path: Path, at: Callable[..., str], name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=at(path, None, "no sentence in this file", "is it the right one")):
        Corpus("mine", tmp_path).inventory("train")


def test_a_missing_split_is_refused(corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str]) -> None:
    corpus = corpus_of(train=GOOD)
    assert corpus.has("train")
    assert not corpus.has("dev")
    with pytest.raises(DataError, match=at(tmp_path, None, "no file for the dev split", "train.txt", "--dev_file")):
        corpus.inventory("dev")


def test_a_folder_without_any_split_is_refused(corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(tmp_path, None, "no file for the train split", "nothing")):
        corpus_of().entity_types()


def test_ambiguous_files_are_settled_by_naming_one(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("")
    with pytest.raises(DataError, match="--train_file"):
        corpus_of(train=GOOD).inventory("train")
    named = corpus_of(train=GOOD, split_files={"train": tmp_path / "train.txt"})
    assert named.inventory("train").sentences == 2


@pytest.mark.parametrize("cached", [False, True])
def test_a_named_file_that_is_missing_is_refused(
    corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str], cached: bool
) -> None:
    missing = tmp_path / "other.txt"
    corpus = corpus_of(split_files={"train": missing}, cache_dir=tmp_path / "cache" if cached else None)
    with pytest.raises(DataError, match=at(missing, None, "no such file")):
        corpus.inventory("train")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"tokens": ["a"], "tags": ["O"]}', ["a"]),
        ('{"text": "四川"}', ["四", "川"]),
        ('{"text":"四川"}', ["四", "川"]),
        ('{"0": {"sents": "a b"}}', ["a", "b"]),
        ('{\n "0": {"sents": "a b"}\n}', ["a", "b"]),
        ("{ O\na O", ["{", "a"]),
        ("{ NNP I-NP O\na NNP I-NP O", ["{", "a"]),
    ],
)
def test_the_content_tells_json_from_columns(corpus_of: MakeCorpus, content: str, words: list[str]) -> None:
    assert next(corpus_of(test=content).examples("test")).words == words


def test_only_the_test_split_may_be_unlabelled(corpus_of: MakeCorpus) -> None:
    corpus = corpus_of(train="Anna\nleft\n", test="Anna\nleft\n")
    assert corpus.inventory("test").entities == 0
    with pytest.raises(DataError, match="one column"):
        corpus.inventory("train")


def test_types_come_from_all_splits(corpus_of: MakeCorpus) -> None:
    corpus = corpus_of(train=GOOD, dev="Rome B-LOC\n", test="Anna\n")
    assert corpus.entity_types() == ["LOC", "ORG", "PER"]
    assert corpus.label_list("bio") == ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    assert corpus.label_list("bioes")[:5] == ["O", "B-LOC", "I-LOC", "E-LOC", "S-LOC"]


def test_types_unseen_in_training_are_named(corpus_of: MakeCorpus) -> None:
    corpus = corpus_of(train=GOOD, dev="Rome B-LOC\nx B-ART\nbig B-ORG\n")
    assert corpus.types_unseen_in_training("dev") == ["ART", "LOC"]
    assert corpus.types_unseen_in_training("train") == []


def test_a_type_that_is_no_label_is_refused_with_its_line(
    corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str]
) -> None:
    corpus = corpus_of(train=GOOD, dev="Anna B-PER\n\nin O\nRome B-LOC\n")
    corpus.check_types("train", ["ORG", "PER"])
    with pytest.raises(DataError, match=at(tmp_path / "dev.txt", 4, "'LOC'", "ORG, PER", "labels.txt")):
        corpus.check_types("dev", ["ORG", "PER"])
    with pytest.raises(DataError, match=r"(?s)\A2 faults:.*dev\.txt:1: .*'PER'.*dev\.txt:4: .*'LOC'"):
        corpus.check_types("dev", ["ORG"])


def test_a_relative_name_may_be_one_in_the_data_folder(
    corpus_of: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    named = corpus_of(train=GOOD, dev=GOOD, split_files={"train": Path("dev.txt"), "dev": Path("no.txt")})
    assert named.source_name("train") == str(tmp_path / "dev.txt")
    with pytest.raises(DataError, match=rf"\Ano\.txt: there is no such file.*\(--dev_file\), nor {tmp_path}/no\.txt"):
        named.source_name("dev")
    (elsewhere / "dev.txt").write_text(GOOD)
    nearer = corpus_of(split_files={"train": Path("dev.txt")})
    assert nearer.source_name("train") == "dev.txt"


def test_a_word_column_is_for_columns_only(corpus_of: MakeCorpus) -> None:
    assert corpus_of(train=GOOD, word_column="0").inventory("train").words == 4
    with pytest.raises(DataError, match=r"train\.txt: --word_column is for files of columns only"):
        corpus_of(train='{"tokens": ["a"], "tags": ["O"]}', word_column="0").inventory("train")


@pytest.mark.parametrize(
    ("labels", "types"),
    [
        ("PER\nLOC\n", ["PER", "LOC"]),
        ("\ufeffPER\r\n\r\n LOC \r\n", ["PER", "LOC"]),
        ("O\nB-PER\nI-PER\nB-work-of-art\nI-work-of-art\n", ["PER", "work-of-art"]),
        ("B\nI\nO\n", [""]),
        ("O\nB_PER\nI_PER\n", ["PER"]),
        ("work-of-art\n", ["work-of-art"]),
    ],
)
def test_a_label_file_fixes_the_types_and_their_order(corpus_of: MakeCorpus, labels: str, types: list[str]) -> None:
    assert corpus_of(train=GOOD, labels=labels).entity_types() == types


def test_a_named_label_file_wins(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("X\n")
    assert corpus_of(train=GOOD, labels="Y\n", labels_file=tmp_path / "other").entity_types() == ["X"]


def test_a_known_task_has_its_types(corpus_of: MakeCorpus) -> None:
    assert corpus_of("conll2003", train=GOOD).entity_types() == ["LOC", "MISC", "ORG", "PER"]


@pytest.mark.parametrize(
    ("labels", "line", "said"),
    [
        ("", None, ("label file is empty", "one tag or entity type per line")),
        ("\n \n", None, ("label file is empty",)),
        ("PER\n\nLOC\nPER\n", 4, ("'PER' is already on line 1", "remove one")),
        ("O\nB-PER\nB-PER\n", 3, ("'B-PER' is already on line 2",)),
        ("O\nB-PER\nX\n", 3, ("'X' is not a tag", "without O")),
        (b"PER\n\xce\xd2\n", 2, ("not UTF-8",)),
    ],
)
def test_a_bad_label_file_is_refused(
    corpus_of: MakeCorpus,
    tmp_path: Path,
    at: Callable[..., str],
    labels: str | bytes,
    line: int | None,
    said: tuple[str],
) -> None:
    with pytest.raises(DataError, match=at(tmp_path / "labels.txt", line, *said)):
        corpus_of(train=GOOD, labels=labels).entity_types()


def test_a_missing_label_file_is_refused(corpus_of: MakeCorpus, tmp_path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(tmp_path / "no.txt", None, "no such file")):
        corpus_of(train=GOOD, labels_file=tmp_path / "no.txt").entity_types()


def test_the_digest_is_of_content_and_reading_not_of_place(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    corpus = corpus_of(train=GOOD, dev=GOOD)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "train.conll").write_text(GOOD)
    digests = {
        corpus.digest("train"),
        corpus.digest("dev"),
        corpus_of(tag_column="1").digest("train"),
        corpus_of(word_column="0").digest("train"),
        corpus_of(train=GOOD.replace("PER", "LOC")).digest("train"),
    }
    assert len(digests) == 5
    assert Corpus("mine", copy).digest("train") in digests
    assert corpus_of(word_unit="char").digest("train") in digests  # nothing in this file is cut
    texts = '{"text": "Anna", "entities": []}'
    cutting = [corpus_of(train=texts, word_unit=unit, cache_dir=tmp_path / "cache") for unit in ("char", "word")]
    by_unit = {corpus.digest("train") for corpus in cutting}
    assert len(by_unit) == 2


def test_counts_are_kept_and_counted_anew_for_new_content(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = corpus_of(train=GOOD, cache_dir=cache).inventory("train")
    (parsed,) = cache.iterdir()
    kept = parsed / "inventory.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "entities": 99}))
    assert corpus_of(cache_dir=cache).inventory("train").entities == 99
    assert corpus_of(train=GOOD + "\n" + GOOD, cache_dir=cache).inventory("train").entities == 2 * first.entities


def nonblank_lines(path: Path) -> int:
    """Lines that hold a word, counted without the reader."""
    return sum(bool(line.strip()) and b"DOCSTART" not in line for line in path.read_bytes().split(b"\n"))


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("split", "file", "sentences", "entities"),
    [("train", "eng.train", 14041, 23499), ("dev", "eng.testa", 3250, 5942), ("test", "eng.testb", 3453, 5648)],
)
def test_both_copies_of_conll2003_have_the_published_counts_and_the_same_entities(
    data_root: Path, split: str, file: str, sentences: int, entities: int
) -> None:
    iob1, iob2 = (Corpus("conll2003", data_root / folder) for folder in ("conll2003", "conll2003/iob2"))
    words = nonblank_lines(data_root / "conll2003" / file)
    for corpus, scheme in ((iob1, "IOB1"), (iob2, "IOB2")):
        found = corpus.inventory(split)
        assert (found.sentences, found.words, found.entities) == (sentences, words, entities)
        assert found.scheme == scheme
        corpus.check_types(split, corpus.entity_types())
    for one, two in zip(iob1.examples(split), iob2.examples(split), strict=True):
        assert one.words == two.words
        assert one.entities == two.entities


def sentences_of_cner(data_root: Path, split: str) -> list[str]:
    """Each as lines of a character and its tag."""
    return (data_root / "cner" / f"{split}.char.bmes").read_text("utf-8").strip().split("\n\n")


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("split", "sentences", "begun", "read"),
    [("train", 3821, 13438, 13440), ("dev", 463, 1497, 1497), ("test", 477, 1630, 1630)],
)
def test_cner_has_the_published_counts_but_for_two_entities_cut_by_blank_lines(
    data_root: Path, split: str, sentences: int, begun: int, read: int
) -> None:
    corpus = Corpus("cner", data_root / "cner")
    found = corpus.inventory(split)
    assert (found.scheme, found.sentences, found.entities) == ("BMES", sentences, read)
    assert found.words == nonblank_lines(data_root / "cner" / f"{split}.char.bmes")
    assert sum(tags.count(" B-") + tags.count(" S-") for tags in sentences_of_cner(data_root, split)) == begun
    assert found.illegal_transitions == 2 * (read - begun)
    corpus.check_types(split, corpus.entity_types())


@pytest.mark.corpora
def test_the_two_entities_of_cner_are_cut_at_a_sentence_border(data_root: Path) -> None:
    tags = [[line.split()[1] for line in sentence.splitlines()] for sentence in sentences_of_cner(data_root, "train")]
    cut = [(left[-1], right[0]) for left, right in pairwise(tags) if left[-1][0] in "BM"]
    assert len(cut) == 2
    assert all(right[0] in "ME" and left[2:] == right[2:] for left, right in cut)


@pytest.mark.corpora
@pytest.mark.parametrize(("split", "texts", "nested"), [("train", 10748, 2), ("dev", 1343, 0), ("test", 1345, 0)])
def test_cluener_has_the_published_counts_and_one_nested_case(
    data_root: Path, split: str, texts: int, nested: int
) -> None:
    corpus = Corpus("cluener", data_root / "cluener")
    found = corpus.inventory(split)
    records = [json.loads(line) for line in (data_root / "cluener" / f"{split}.json").open(encoding="utf-8")]
    places = sum(
        len(places) for record in records for kind in record.get("label", {}).values() for places in kind.values()
    )
    assert (found.sentences, found.words) == (texts, sum(len(record["text"]) for record in records))
    assert (found.nested_entities, found.entities) == (nested, places)
    corpus.check_types(split, corpus.entity_types())


@pytest.mark.corpora
def test_the_test_split_of_cluener_is_unlabelled_and_has_ids(data_root: Path) -> None:
    examples = list(Corpus("cluener", data_root / "cluener").examples("test"))
    assert [example.guid for example in examples] == [str(index) for index in range(1345)]
    assert all(iob2(example) is None for example in examples)


@pytest.mark.corpora
def test_the_object_form_of_conll2003_is_its_test_split_and_the_rest_of_train(data_root: Path) -> None:
    file = data_root / "conll2003_json" / "conll2003.jsonl"
    entries = Corpus("conll2003", file.parent, split_files={"train": file}).examples("train")
    found = [example.entities for example in entries]
    iob2 = Corpus("conll2003", data_root / "conll2003" / "iob2")
    test, train = ([example.entities for example in iob2.examples(split)] for split in ("test", "train"))
    assert found == test + train[3453:]


@pytest.mark.parametrize(
    ("train", "unit"),
    [
        ("他 O\n叫 O\n李 B-P\n明 I-P\n", "char"),
        ("he O\nleft O\nanna B-P\n", "word"),
        ("他 O\n走 O\n了 O\n\nanna B-P\nleft O\n", "auto"),
    ],
)
def test_the_word_unit_of_raw_text_is_that_of_train(corpus_of: MakeCorpus, train: str, unit: str) -> None:
    assert corpus_of(train=train).learned_cutter().cutter.unit == unit
