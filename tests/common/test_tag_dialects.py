"""Tags written in other ways mean the same; what could mean two things is refused by name."""

import pytest

from common.tag_dialects import UnknownTagsError, canonical_tags
from common.tag_schemes import MARKUPS, split_tag, tag_set

TYPES = ["PER", "I_ORG", "DATE-TIME", "地名", "e"]


def _changed(tag: str, separator: str = "-", type_first: bool = False, lower: bool = False) -> str:
    if tag == "O":
        return tag
    prefix, entity_type = split_tag(tag)
    parts = [prefix.lower() if lower else prefix, entity_type]
    return separator.join(reversed(parts) if type_first else parts)


@pytest.mark.parametrize("markup", MARKUPS)
@pytest.mark.parametrize("separator", ["-", "_"])
@pytest.mark.parametrize("type_first", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("outside", ["O", "o", "0"])
def test_tags_of_every_scheme_and_dialect_are_read(
    markup: str, separator: str, type_first: bool, lower: bool, outside: str
) -> None:
    usual = tag_set(TYPES, MARKUPS[markup])
    written = [_changed(tag, separator, type_first, lower) for tag in usual]
    written[0] = outside
    dialect = canonical_tags(written)
    assert list(dialect.tags) == written
    assert list(dialect.tags.values()) == usual
    assert canonical_tags(dialect.tags.values()).description == ""
    assert (dialect.description == "") == (written == usual)
    with_labels = canonical_tags([*written, "X", "[CLS]", "<pad>"], special=True)
    assert list(with_labels.tags.values()) == [*usual, "", "", ""]
    assert "special labels <pad>, X, [CLS]" in with_labels.description


@pytest.mark.parametrize(
    ("tags", "usual", "description"),
    [
        ("O PER LOC-GPE", "O I-PER I-LOC-GPE", "tags without prefixes (IO), 'LOC-GPE' for 'I-LOC-GPE'"),
        ("O I-PER", "O I-PER", ""),
        ("o b i", "O B I", "tags written PREFIX-TYPE, 'b' for 'B'; 'o' for 'O'"),
        ("B M E S", "B M E S", ""),
        ("O B-I_ORG I-I_ORG", "O B-I_ORG I-I_ORG", ""),
        ("O B_PER", "O B-PER", "tags written PREFIX_TYPE, 'B_PER' for 'B-PER'"),
        ("0 PER-B", "O B-PER", "tags written TYPE-PREFIX, 'PER-B' for 'B-PER'; '0' for 'O'"),
        ("", "", ""),
    ],
)
def test_what_is_unusual_is_described(tags: str, usual: str, description: str) -> None:
    dialect = canonical_tags(tags.split())
    assert list(dialect.tags.values()) == usual.split()
    assert dialect.description == description


def test_the_labels_of_a_model_may_be_classes_of_words_and_none() -> None:
    dialect = canonical_tags(["NOUN", "X", "m", "PRP$", "<pad>"], special=True)
    assert list(dialect.tags.values()) == ["S-NOUN", "S-X", "S-m", "S-PRP$", ""]
    with pytest.raises(UnknownTagsError, match="'NOUN', 'X' are not tags"):
        canonical_tags(["NOUN", "X"])


@pytest.mark.parametrize(
    ("tags", "unknown", "reason"),
    [
        ("O B-PER X", "X", "is not a tag: expected O"),
        ("O B-PER PER", "PER", "is not a tag"),
        ("O B-PER Q-PER", "Q-PER", "is not a tag"),
        ("O B-PER B_LOC", "B_LOC", "is not a tag"),
        ("O E-MAIL PER", "PER", "is not a tag"),
        ("O B-", "B-", "is not a tag"),
        ("O o B-PER", "o", "is not a tag"),
        ("O 1 2", "1 2", "are not tags"),
        ("O B_X-I", "B_X-I", "can be read in two ways, as PREFIX_TYPE and as TYPE-PREFIX"),
        ("O B-PER b-PER", "B-PER b-PER", "are several ways to write the same tags"),
    ],
)
def test_what_cannot_be_understood_is_named(tags: str, unknown: str, reason: str) -> None:
    with pytest.raises(UnknownTagsError, match=reason) as error:
        canonical_tags(tags.split())
    assert error.value.tags == unknown.split()
