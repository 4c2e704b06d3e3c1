"""How many corrupted annotations are found among as many suspicious ones as were corrupted.

python -m benchmarks.label_errors --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER --output_dir OUT

Takes the flags of `tools.find_label_errors` too. An interrupted measurement continues where it was.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.entities import Entity, in_text_order
from common.options import option
from models import BertCrfForNer
from processors.examples import Example
from processors.formats.writers import FORMATS
from tools.command_line import chosen_head, parse_flags
from tools.find_label_errors import LabelErrorOptions, find_label_errors
from tools.run import corpus_of
from tools.script import run_script
from tools.settings import Settings, require

KINDS = ("type", "boundary", "dropped")


@dataclass(frozen=True)
class CorruptionOptions:
    """Flags of the benchmark."""

    share: float = option(0.03, "share of the entities that are corrupted", common=True, above=0, at_most=0.5)
    corruption_seed: int = option(0, "seed of the corruption", common=True, at_least=0)


class Corrupted(NamedTuple):
    """A corrupted annotation: the name of its text, the kind, and the entity before and after."""

    text: str
    kind: str
    before: Entity
    after: Entity | None


def corrupt(examples: Sequence[Example], share: float, seed: int) -> list[Corrupted]:
    """Corrupt a share of the entities in place: change the type, move a boundary by one word, or drop the entity.

    An entity without room to move a boundary has its type changed.
    """
    generator = random.Random(seed)
    types = sorted({entity.type for example in examples for entity in example.entities or ()})
    places = [(example, entity) for example in examples for entity in example.entities or ()]
    corrupted = []
    for example, entity in generator.sample(places, round(share * len(places))):
        others = [one for one in example.entities or () if one != entity]
        kind = generator.choice(KINDS)
        moved = [one for one in _moved(entity) if _fits(one, others, len(example.words))]
        if kind == "boundary" and not moved:
            kind = "type"
        after = None
        if kind == "boundary":
            after = generator.choice(moved)
        elif kind == "type":
            after = entity._replace(type=generator.choice([one for one in types if one != entity.type]))
        example.entities = in_text_order([*others, *([after] if after else [])])
        corrupted.append(Corrupted(example.guid, kind, entity, after))
    return corrupted


def _moved(entity: Entity) -> list[Entity]:
    first, last = entity.first_word, entity.last_word
    ends = [(first - 1, last), (first, last + 1), (first + 1, last), (first, last - 1)]
    return [Entity(entity.type, *one) for one in ends if one[0] <= one[1]]


def _fits(entity: Entity, others: Sequence[Entity], words: int) -> bool:
    apart = all(entity.last_word < one.first_word or one.last_word < entity.first_word for one in others)
    return apart and entity.first_word >= 0 and entity.last_word < words


def found_among(records: Sequence[dict[str, Any]], corrupted: Sequence[Corrupted]) -> Counter[str]:
    """Count the corrupted annotations among suspicious ones, by kind.

    A changed entity is found if it is named, a dropped one if an entity that overlaps it is said to be missing.
    """
    named = {(one["id"], _entity(one["gold"])) for one in records if one["gold"]}
    missing: dict[str, list[Entity]] = {}
    for one in records:
        if one["kind"] == "missing":
            missing.setdefault(one["id"], []).append(_entity(one["suggestion"]))
    counts: Counter[str] = Counter()
    for text, kind, before, after in corrupted:
        if after is not None:
            counts[kind] += (text, after) in named
        else:
            counts[kind] += any(not _fits(before, [one], before.last_word + 1) for one in missing.get(text, ()))
    return counts


def _entity(record: dict[str, Any]) -> Entity:
    return Entity(record["type"], record["first_word"], record["last_word"])


def main() -> None:
    head = chosen_head(BertCrfForNer)
    settings, (options, corruption) = parse_flags(
        Settings(head=head.Options()),
        (__doc__ or "").partition("\n")[0],
        more=[LabelErrorOptions, CorruptionOptions],
    )
    require(settings, "task_name", "output_dir", "model_name_or_path")
    home = Path(settings.actions.output_dir)
    data = home / "corpus"
    data.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(settings.data)
    examples = list(corpus.examples("train"))
    corrupted = corrupt(examples, corruption.share, corruption.corruption_seed)
    (home / "corrupted.json").write_text(json.dumps(corrupted), "utf-8")
    FORMATS["jsonl"].write(examples, data / "train.jsonl")
    if corpus.has("dev"):
        FORMATS["jsonl"].write(corpus.examples("dev"), data / "dev.jsonl")
    whole = {"data_dir": str(data), "train_file": "", "dev_file": "", "dataset_name": "", "tag_column": "last"}
    settings = settings.replace(**whole, word_column="", output_dir=str(home / "search"))
    records = find_label_errors(settings, options, head)
    print(table(records, corrupted))


def table(records: Sequence[dict[str, Any]], corrupted: Sequence[Corrupted]) -> str:
    """Found shares by kind, among as many annotations as were corrupted and among twice as many."""
    lines = ["| corrupted | number | found among as many | among twice as many |", "|---|---|---|---|"]
    totals = Counter(one.kind for one in corrupted)
    found = [found_among(records[: times * len(corrupted)], corrupted) for times in (1, 2)]
    for kind in [kind for kind in KINDS if totals[kind]]:
        shares = " | ".join(f"{counts[kind] / totals[kind]:.1%}" for counts in found)
        lines.append(f"| {kind} | {totals[kind]} | {shares} |")
    shares = " | ".join(f"{counts.total() / len(corrupted):.1%}" for counts in found)
    return "\n".join([*lines, f"| all | {len(corrupted)} | {shares} |"])


if __name__ == "__main__":
    run_script(main)
