"""Which letters of a word are capitals: what uncased tokenizers do not let an encoder see."""

CASINGS = 4
LOWER, TITLE, UPPER, MIXED = range(CASINGS)


def casing_of(word: str) -> int:
    """The casing of a word's letters; what is no letter, or has no capitals, as in Chinese, does not count.

    ``LOWER`` without capitals, ``TITLE`` where only the first letter is one, ``UPPER`` where all of several are, else
    ``MIXED``.
    """
    letters = "".join(filter(str.isalpha, word))
    rest = letters[1:]
    if letters == letters.lower():
        return LOWER
    if rest == rest.lower():
        return TITLE
    return UPPER if letters == letters.upper() else MIXED
