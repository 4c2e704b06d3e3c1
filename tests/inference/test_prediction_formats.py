"""Predictions in each format, read back."""

import csv
import gzip
import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tag_schemes import tags_to_entities
from inference.formats import FORMATS, article, columns, json_record, table_rows, write_predictions
from inference.predictor import FoundEntity
from processors.formats.brat import read_brat
from processors.formats.columns import read_columns
from processors.spans import Reading
from processors.text.text_files import RawText
from processors.text.word_cutting import WordCutter
from tests.tags import iob2

ITEM = RawText(7, "Dan Lee\tleft <Acme> & co\n")
WORDS = WordCutter("word")
FOUND = [FoundEntity("PER", 0, 7, "Dan Lee", 0.98765432), FoundEntity("ORG", 13, 19, "<Acme>", 1.0)]


@st.composite
def predictions(draw: st.DrawFn, word_unit: str) -> tuple[RawText, list[FoundEntity]]:
    """A text with entities that begin and end with a word."""
    text = draw(st.text(max_size=30))
    words = WordCutter(word_unit).split(text)[1]
    borders = sorted(draw(st.sets(st.integers(0, len(words)), max_size=6)))
    found = []
    for first, after in list(pairwise(borders))[::2]:
        start, end = words[first][0], words[after - 1][1]
        found.append(FoundEntity(draw(st.sampled_from("AB")), start, end, text[start:end], draw(st.floats(0, 1))))
    return RawText("x", text), found


@given(predictions("char"))
def test_json_lines_say_all(prediction: tuple[RawText, list[FoundEntity]]) -> None:
    item, found = prediction
    line = json_record(item, found)
    assert line.count("\n") == 1
    record = json.loads(line)
    assert (record["id"], record["text"]) == ("x", item.text)
    assert [FoundEntity(**entity)[:4] for entity in record["entities"]] == [entity[:4] for entity in found]


@pytest.mark.parametrize("word_unit", ["char", "word"])
@given(st.data())
def test_columns_hold_the_same_words_and_entities(word_unit: str, data: st.DataObject) -> None:
    item, found = data.draw(predictions(word_unit))
    rows = [row.rsplit(" ", 1) for row in columns(item, found, WordCutter(word_unit)).split("\n") if row]
    assert "".join(word for word, _ in rows) == "".join("".join(WordCutter(word_unit).split(item.text)[0]).split())
    kept = [entity for entity in found if entity.surface.strip()]
    entities = tags_to_entities([tag for _, tag in rows])
    assert [entity.type for entity in entities] == [entity.type for entity in kept]
    for entity, expected in zip(entities, kept, strict=True):
        words = [word for word, _ in rows[entity.first_word : entity.last_word + 1]]
        assert "".join(words) == "".join(expected.surface.split())


def test_columns_are_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(columns(ITEM, FOUND, WORDS) + columns(RawText(8, ""), [], WORDS), "utf-8")
    (example,) = read_columns(tmp_path / "a.txt", Reading())
    assert example.words == ["Dan", "Lee", "left", "<", "Acme", ">", "&", "co"]
    assert iob2(example) == ["B-PER", "I-PER", "O", "B-ORG", "I-ORG", "I-ORG", "O", "O"]


def test_a_table_row_is_one_line_whatever_it_holds() -> None:
    rows = table_rows(ITEM, [FOUND[0], FoundEntity("X", 4, 8, "Lee\t", 0.5), FoundEntity("X", 24, 25, "\n", 0.5)])
    assert list(csv.reader(rows.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)) == [
        ["7", "PER", "0", "7", "0.987654", "Dan Lee"],
        ["7", "X", "4", "8", "0.500000", "Lee\\t"],
        ["7", "X", "24", "25", "0.500000", "\\n"],
    ]


def test_a_page_shows_the_text_untouched_and_marks_entities() -> None:
    shown = article("a & b", ITEM.text, FOUND)
    paragraph = re.search(r"<p[^>]*>(.*)</p>", shown, flags=re.S)
    assert paragraph is not None
    plain = re.sub("<[^>]*>", "", re.sub(r"<small>\w+</small>", "", paragraph[1]))
    assert unescape(plain) == ITEM.text
    assert re.findall(r'title="(\w+ [\d.]+%)"><bdi>(.*?)</bdi>', shown) == [
        ("PER 98.8%", "Dan Lee"),
        ("ORG 100.0%", "&lt;Acme&gt;"),
    ]
    assert "a &amp; b" in shown


def test_control_characters_become_visible_in_a_page() -> None:
    assert "a\u2400b\u241b" in article("x", "a\x00b\x1b", [])


@pytest.mark.parametrize("format", FORMATS[:-1])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_is_packed_by_its_name(tmp_path: Path, format: str, suffix: str) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    write_predictions([(ITEM, FOUND), (RawText(8, "\ud800"), [])], format, str(path), WORDS)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if suffix else raw).decode("utf-8")
    assert text.count("PER") >= 1
    assert text.count("\n") >= 2


def test_brat_reads_back_what_was_found(tmp_path: Path) -> None:
    write_predictions([(ITEM, FOUND), (RawText("b/c", ""), [])], "brat", str(tmp_path / "new"), WORDS)
    first, second = read_brat(tmp_path / "new", Reading())
    assert (first.text, second.text) == (ITEM.text, "")
    assert first.offsets is not None
    found = [
        (entity.type, first.offsets[entity.first_word][0], first.offsets[entity.last_word][1])
        for entity in first.entities or []
    ]
    assert found == [entity[:3] for entity in FOUND]
    for output in ("", str(tmp_path / "new")):
        with pytest.raises(ValueError, match="brat needs a new folder"):
            write_predictions([], "brat", output, WORDS)


def test_a_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    write_predictions([(ITEM, FOUND)] * 3, "html", str(tmp_path / "a.html"), WORDS)
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</body>\n</html>\n")
    assert page.count("<article>") == 3
    assert not re.search(r"https?:|src=|href=", page)
