"""Dictionaries: files, longest matches against a search of all places, and shares of what a corpus has."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.entities import Entity
from processors.examples import DataError, Example
from processors.text.gazetteer import Gazetteer, make_gazetteer, read_gazetteer, write_gazetteer


def found_in(gazetteer: Gazetteer, words: list[str]) -> list[tuple[int, int, set[str]]]:
    return [(first, last, set(types)) for first, last, types in gazetteer.matches(words)]


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(
    st.lists(st.tuples(WORDS, st.sampled_from(["X", "Y"])), max_size=8), st.lists(st.sampled_from("abcd"), max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_the_longest_entries_are_found_from_left_to_right(
    entries: list[tuple[list[str], str]], words: list[str]
) -> None:
    gazetteer, types = Gazetteer(), dict[tuple[str, ...], set[str]]()
    for surface, kind in entries:
        gazetteer.add(" ".join(surface), [kind])
        types.setdefault(tuple(surface), set()).add(kind)
    expected, place = [], 0
    while place < len(words):
        longest = max((n for n in range(1, 5) if tuple(words[place : place + n]) in types), default=0)
        longest = min(longest, len(words) - place)
        if longest:
            expected.append((place, place + longest - 1, types[tuple(words[place : place + longest])]))
        place += max(longest, 1)
    assert found_in(gazetteer, words) == expected
    assert gazetteer.types == {kind for _, kind in entries}


@pytest.mark.parametrize(
    ("surface", "words"),
    [
        ("Standard & Poor's", "Standard & Poor 's"),
        ("Standard & Poor's", "Standard & Poor ' s"),
        ("U.N.", "U.N."),
        ("U.N.", "U . N ."),
        ("北京大学", "北 京 大 学"),
        ("New  York", "New York"),
    ],
)
def test_entries_match_however_a_text_is_cut(surface: str, words: str) -> None:
    gazetteer = Gazetteer()
    gazetteer.add(surface, ["ORG"])
    assert found_in(gazetteer, ["x", *words.split()]) == [(1, len(words.split()), {"ORG"})]


def test_case_matters_unless_it_is_ignored() -> None:
    for ignored in (False, True):
        gazetteer = Gazetteer(ignored)
        gazetteer.add("New York", ["LOC"])
        assert bool(list(gazetteer.matches(["NEW", "york"]))) == ignored


def test_all_faulty_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "types.tsv"
    path.write_text("Anna\tPER\t0.9\nParis\n\n\tLOC\nParis\tLOC\nParis\tPER\n", "utf-8")
    with pytest.raises(DataError, match=rf"2 faults:\n.*{re.escape(str(path))}:2: .*'Paris'\n.*:4: "):
        read_gazetteer(path)
    path.write_text("Anna\tPER\t0.9\n\nParis\tLOC\nParis\tPER\n", "utf-8")
    assert found_in(read_gazetteer(path), ["Anna", "Paris"]) == [(0, 0, {"PER"}), (1, 1, {"LOC", "PER"})]


def test_shares_are_of_the_matches_that_are_entities(tmp_path: Path) -> None:
    examples = [
        Example("1", ["Anna", "met", "May"], [Entity("PER", 0, 0), Entity("PER", 2, 2)]),
        Example("2", ["in", "May", ",", "May", "left"], [Entity("PER", 3, 3)]),
        Example("3", ["May", "Day"], [Entity("MISC", 0, 1)]),  # its May is no match
        Example("4", ["may", "Anna"], [Entity("ORG", 1, 1)]),
        Example("5", ["May"], [], unannotated=[(0, 0)]),
        Example("6", ["May"]),
    ]
    entries = make_gazetteer(examples)
    assert entries == [("Anna", "ORG", 0.5), ("Anna", "PER", 0.5), ("May", "PER", 2 / 3), ("May Day", "MISC", 1.0)]
    assert ("May", "PER", 0.5) in make_gazetteer(examples, ignore_case=True)
    write_gazetteer(entries, tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text("utf-8").splitlines()[2] == "May\tPER\t0.6667"
    assert found_in(read_gazetteer(tmp_path / "out.tsv"), ["May", "Day"]) == [(0, 1, {"MISC"})]
