"""The tasks in the columns of the CoNLL files: names, chunks and parts of speech."""

from pathlib import Path
from typing import ClassVar

from processors.corpus import Corpus
from processors.examples import Example
from processors.features.build import convert_examples_to_features


class TokenClassificationTask:
    """A tag per word; subclasses name the column that holds it, and the corpus whose labels are the default."""

    task_name: ClassVar[str]
    tag_column: ClassVar[str]
    convert_examples_to_features = staticmethod(convert_examples_to_features)

    def read_examples_from_file(self, data_dir: str | Path, mode: str) -> list[Example]:
        """The examples of the ``train``, ``dev`` or ``test`` split.

        Raises:
            DataError: the split is missing or malformed.
        """
        corpus = Corpus(self.task_name, Path(data_dir), tag_column=self.tag_column)
        return list(corpus.examples(mode))

    def get_labels(self, path: str | Path | None = None, markup: str = "bio") -> list[str]:
        """The tags of a file with one tag or type per line; by default those of CoNLL-2003."""
        return Corpus(self.task_name, labels_file=Path(path) if path else None).label_list(markup)


class NER(TokenClassificationTask):
    """Names of persons, organisations, places and others, in the last column."""

    task_name = "conll2003"
    tag_column = "last"


class Chunk(TokenClassificationTask):
    """Phrases (Tjong Kim Sang and Buchholz 2000), in the last column but one."""

    task_name = "chunk"
    tag_column = "-2"


class POS(TokenClassificationTask):
    """Parts of speech in the tags of the Penn Treebank, in the second column."""

    task_name = "pos"
    tag_column = "1"


TASK_TYPES: dict[str, type[TokenClassificationTask]] = {task.__name__: task for task in (NER, Chunk, POS)}
