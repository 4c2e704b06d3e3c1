"""Corpora in columns under their original file names, against the counts that are published with them."""

from pathlib import Path

import pytest

from processors.corpus import Corpus
from processors.tasks import SPLITS


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("folder", "tag_column", "sentences", "words", "entities"),
    [
        ("bio/NCBI-disease-IOB", "last", (5424, 923, 940), (135701, 23969, 24497), (5134, 787, 960)),
        ("bio/BC5CDR-IOB", "last", (4560, 4581, 4797), (118170, 117453, 124750), (9385, 9593, 9809)),
        ("bio/BC2GM-IOB", "last", (2500, 1000, 1500), (69089, 27957, 42236), (2873, 1163, 1861)),
        ("germeval2014", "1", (6000, 2200, 5100), (112242, 41653, 96499), (7089, 2674, 6178)),
        ("germeval2014", "1,2", (6000, 2200, 5100), (112242, 41653, 96499), (7658, 2886, 6693)),
        ("germeval2014", "last", (6000, 2200, 5100), (112242, 41653, 96499), (569, 212, 515)),
    ],
)
def test_corpora_under_their_original_names_have_their_counts(
    data_root: Path,
    folder: str,
    tag_column: str,
    sentences: tuple[int, ...],
    words: tuple[int, ...],
    entities: tuple[int, ...],
) -> None:
    corpus = Corpus("", data_root / folder, tag_column=tag_column)
    found = [corpus.inventory(split) for split in SPLITS]
    assert tuple(one.sentences for one in found) == sentences
    assert tuple(one.words for one in found) == words
    assert tuple(one.entities for one in found) == entities
    if folder == "germeval2014" and tag_column == "last":
        assert [list(one.findings.counts.values()) for one in found] == [[7089], [2674], [6178]]
        assert all("use --tag_column 1 to read them" in kind for one in found for kind in one.findings.counts)
    else:
        assert not any(one.findings.counts for one in found)
