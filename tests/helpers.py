"""Small corpora and command lines that tests make."""

import json
import random
from pathlib import Path
from typing import Any

from tools.run import Run

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
NAMES = {"PER": ["anna", "bob", "carol", "dan lee"], "LOC": ["paris", "rome", "new york"], "ORG": ["acme", "big co"]}
FILLERS = ["the", "man", "said", "that", "he", "saw", "it", "when", "we", "met", "near", "here", ",", "then", "left"]


def write_corpus(folder: Path, sentences: dict[str, int], seed: int = 0) -> Path:
    """Writes a learnable corpus in IOB2 columns: so many sentences a split."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in sentences.items():
        blocks = []
        for _ in range(count):
            lines = []
            for _ in range(generator.randrange(1, 4)):
                lines += [f"{word} O" for word in generator.choices(FILLERS, k=generator.randrange(1, 6))]
                entity_type = generator.choice(sorted(NAMES))
                first, *rest = generator.choice(NAMES[entity_type]).split()
                lines += [f"{first} B-{entity_type}", *(f"{word} I-{entity_type}" for word in rest)]
            blocks.append("\n".join(lines))
        (folder / f"{split}.txt").write_text("\n\n".join(blocks) + "\n", "utf-8")
    return folder


def write_nested_corpus(folder: Path, texts: dict[str, int]) -> Path:
    """Writes a learnable corpus in which a name of an organisation may hold a place: so many texts a split."""
    generator = random.Random(0)
    folder.mkdir()
    for split, count in texts.items():
        lines = [json.dumps(_nested_text(generator)) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def _nested_text(generator: random.Random) -> dict[str, Any]:
    text, entities = "", []
    for _ in range(generator.randrange(1, 4)):
        text += " ".join(generator.choices(FILLERS, k=generator.randrange(1, 4))) + " "
        place = generator.choice(["paris", "rome", "new york"])
        is_held = generator.random() < 0.6
        if is_held:
            entities.append({"type": "ORG", "start": len(text), "end": len(text) + len(f"big {place} co")})
            text += "big "
        entities.append({"type": "LOC", "start": len(text), "end": len(text) + len(place)})
        text += f"{place} co " if is_held else f"{place} "
    return {"text": text.strip(), "entities": entities}


def as_flags(args: Run) -> list[str]:
    """The arguments as a command line."""
    return [f"--{name}={value}" for name, value in args.settings.flat().items() if value != ""]
