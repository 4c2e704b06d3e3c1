"""Runs in folders."""

from pathlib import Path

import numpy as np
import pytest

from analysis.compare_runs import expand_patterns, load_variants, variant_of
from tests.analysis.runs import write_run


@pytest.mark.parametrize(
    ("folder", "variant"),
    [
        ("out/crf_seed3", "out/crf"),
        ("out/crf-seed-17", "out/crf"),
        ("out/crf/seed_3", "out/crf"),
        ("out/crf.seed1", "out/crf"),
        ("out/crf", "out/crf"),
        ("out/linseed", "out/linseed"),
    ],
)
def test_the_seed_is_no_part_of_a_variants_name(folder: str, variant: str) -> None:
    assert variant_of(Path(folder)) == Path(variant)


def test_where_another_split_is_scored_it_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.8, 1, name="test_documents.jsonl")
    with pytest.raises(
        ValueError, match=r"no eval_documents.jsonl; score the run first, with --do_eval or --split test"
    ):
        load_variants([run], "dev")


def test_runs_are_grouped_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"{name}_seed{seed}", 0.8, seed) for seed in (1, 2) for name in ("b", "a")]
    variants = load_variants([*folders, write_run(tmp_path / "c", 1.0, 0)], "dev")
    assert [(one.name, one.counts.shape) for one in variants] == [
        ("b", (2, 200, 3)),
        ("a", (2, 200, 3)),
        ("c", (1, 200, 3)),
    ]
    assert variants[2].scores("f1") == [1.0]
    assert variants[0].mean_counts == pytest.approx(variants[0].counts.sum(0) / 2)
    assert (variants[0].scores("precision") == 1).all()
    right, _, gold = np.moveaxis(variants[0].counts.sum(1), 1, 0)
    assert variants[0].scores("recall") == pytest.approx(right / gold)


def test_equal_names_in_different_places_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place / "crf_seed1", 0.8, 1) for place in ("cner", "other")]
    assert [one.name for one in load_variants(folders, "dev")] == [
        str(tmp_path / "cner/crf"),
        str(tmp_path / "other/crf"),
    ]


def test_other_documents_are_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", 0.8, 1), write_run(tmp_path / "b", 0.8, 1, documents=199)]
    with pytest.raises(ValueError, match=r"/a and .*/b were scored on different documents"):
        load_variants(folders, "dev")


def test_a_run_that_was_not_scored_is_refused_with_advice(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 0.8, 1)
    with pytest.raises(ValueError, match=r"a has no test_documents.jsonl; score the run first, with --do_predict"):
        load_variants([folder], "test")


def test_patterns_name_folders_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a_seed1", "a_seed2", "b_seed1"):
        (tmp_path / name).mkdir()
    (tmp_path / "a_seed.log").write_text("")
    found = expand_patterns([str(tmp_path / "a_seed2"), str(tmp_path / "a_seed*")])
    assert found == [tmp_path / "a_seed2", tmp_path / "a_seed1"]
    monkeypatch.chdir(tmp_path)
    assert expand_patterns(["*_seed1"]) == [Path("a_seed1"), Path("b_seed1")]
    with pytest.raises(ValueError, match=r"c_\*: no such folder"):
        expand_patterns(["c_*"])
