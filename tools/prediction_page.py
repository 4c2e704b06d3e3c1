"""Predictions as one self-contained page: entities in colour, their type beside them, their confidence on hovering."""

import zlib
from collections.abc import Sequence
from html import escape

from tools.predictor import FoundEntity

PAGE_START = """<!doctype html>
<html lang="und">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Entities</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.9 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
article { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .6rem 0; }
h2 { font-size: .75rem; font-weight: normal; opacity: .65; margin: 0; }
p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; border-radius: .25rem; padding: .1rem .25rem;
       background: light-dark(hsl(var(--hue) 80% 85%), hsl(var(--hue) 45% 28%)); }
mark small { font-size: .65em; font-weight: 600; margin-inline-start: .4em; opacity: .75; }
</style>
</head>
<body>
"""
PAGE_END = "</body>\n</html>\n"
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}  # as pictures


def article(name: str, text: str, entities: Sequence[FoundEntity]) -> str:
    """A text with its entities marked."""
    parts, position = [], 0
    for entity in entities:
        parts += [_shown(text[position : entity.start]), _mark(entity)]
        position = entity.end
    parts.append(_shown(text[position:]))
    return f'<article><h2>{_shown(name)}</h2><p dir="auto">{"".join(parts)}</p></article>\n'


def _mark(entity: FoundEntity) -> str:
    hue = zlib.crc32(entity.type.encode()) % 360
    title = f"{_shown(entity.type)} {entity.confidence:.1%}"
    label = f"<small>{_shown(entity.type)}</small>"
    return f'<mark style="--hue:{hue}" title="{title}"><bdi>{_shown(entity.surface)}</bdi>{label}</mark>'


def _shown(text: str) -> str:
    return escape(text.translate(_CONTROLS))
