"""A tagger over words, trained by the project bert-crf, in one file that needs only torch and transformers.

``python -m tools.publish`` puts this file next to the weights that it publishes, so that transformers loads both::

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForTokenClassification.from_pretrained(name, trust_remote_code=True)
    model.tag_words([["Anna", "went", "to", "Rome", "."]], tokenizer)

The tags are those of ``NerPredictor.tag_words`` in the project, which also reads raw text, gives confidences, trains.
Shapes: B rows, T tokens, W words, C tags, H units.
"""

import inspect
import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

_LONGEST_WORD = 512  # characters of a word that are read
_STRUCTURE = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "mask_token_id")


class Entity(NamedTuple):
    """An entity: its type, and the indices of its first and last word."""

    type: str
    first_word: int
    last_word: int


class TaggedText(NamedTuple):
    """The tags of a text, one per word, and the entities that they stand for."""

    tags: list[str]
    entities: list[Entity]


class Window(NamedTuple):
    """A part of a text that the encoder sees at once.

    Args:
        text: index of the text.
        input_ids, token_type_ids: T tokens, special ones included.
        positions, lengths: of the words that are tagged here: index of the first piece, and number of pieces.
    """

    text: int
    input_ids: list[int]
    token_type_ids: list[int]
    positions: list[int]
    lengths: list[int]


class BertSoftmaxForNer(PreTrainedModel):
    """An encoder of any family and a linear layer over the states of words; each word gets its best tag.

    With ``config.tag_transitions`` the tags of a text are its best legal sequence: for each of the C tags and the
    start, it has the score of each tag that may follow, ``C + 1`` for the end.
    ``config.word_states`` says how the states of words are made if not from the last layer at each word's first piece.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        found = MODEL_MAPPING_NAMES[config.model_type]
        encoder_class = getattr(transformers, found if isinstance(found, str) else found[0])
        for name in ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend"):
            setattr(self, name, getattr(encoder_class, name, False))
        super().__init__(config)
        has_pooler = "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters
        encoder = encoder_class(config, **({"add_pooling_layer": False} if has_pooler else {}))
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        self.takes_token_types = "token_type_ids" in inspect.signature(encoder_class.forward).parameters
        width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None) or config.dim
        self.word_states: dict[str, Any] = getattr(config, "word_states", {})
        self.takes_mean_of_pieces = self.word_states.get("word_pooling") == "mean"
        if size := self.word_states.get("bilstm_size", 0):
            self.bilstm = nn.ModuleList([nn.LSTM(width, size, batch_first=True) for _ in range(2)])
        self.classifier = nn.Linear(2 * size or width, len(config.id2label or {}))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        word_positions: Tensor | None = None,
        word_mask: Tensor | None = None,
        word_lengths: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """Compute ``logits``: the scores of words ``(B, W, C)``, or of tokens ``(B, T, C)`` without word positions.

        Args:
            input_ids, attention_mask, token_type_ids: ``(B, T)``.
            word_positions: ``(B, W)`` index of each word's first piece.
            word_mask: ``(B, W)`` true for words, which fill each row from the left.
            word_lengths: ``(B, W)`` number of pieces of each word, for models that take the mean over them.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        inputs |= {"token_type_ids": token_type_ids} if self.takes_token_types else {}
        states = self._states_of_tokens({name: value for name, value in inputs.items() if value is not None})
        if word_positions is not None:
            states = self._states_of_words(states, word_positions, word_lengths)  # (B, W, H)
        else:
            word_mask = attention_mask
            if self.depends_on_words:
                warnings.warn("scores of tokens: this model predicts the tags of words, see tag_words", stacklevel=2)
        if hasattr(self, "bilstm"):
            states = self._states_of_lstms(states, torch.ones_like(states[..., 0]) if word_mask is None else word_mask)
        return TokenClassifierOutput(logits=self.classifier(states))

    @property
    def depends_on_words(self) -> bool:
        """Whether the best tag of a word is not simply that of its first piece, as in other token classifiers."""
        has_casing = bool(getattr(self.config, "casing_types", None))
        searches = hasattr(self, "crf") or bool(getattr(self.config, "tag_transitions", None))
        return has_casing or self.takes_mean_of_pieces or hasattr(self, "bilstm") or searches

    def decode(self, logits: Tensor, word_mask: Tensor | None = None) -> list[list[str]]:
        """Choose the tags of words from their scores: ``(B, W, C), (B, W) -> B lists``."""
        logits = logits.float().cpu()
        mask = torch.ones(logits.shape[:2]).bool() if word_mask is None else word_mask.bool().cpu()
        best, counts, names = self._best_tags(logits, mask).tolist(), mask.sum(1).tolist(), self.config.id2label or {}
        return [[names[tag] for tag in row[:words]] for row, words in zip(best, counts, strict=True)]

    @torch.inference_mode()
    def tag_words(
        self, texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, batch_size: int = 32
    ) -> list[TaggedText]:
        """Tag texts of any length that are cut into words in the way of the training data (``config.word_unit``).

        A text of more than ``config.eval_max_seq_length`` tokens is read in overlapping windows and decoded as a whole.
        Each text is read by itself, also by a model that was trained with the sentences around as context.

        Args:
            tokenizer: that of the model.
            batch_size: windows that are encoded at once.
        """
        if isinstance(texts, str) or any(isinstance(words, str) for words in texts):
            raise TypeError("expected a list of words for each text")
        windows = [window for text, words in enumerate(texts) for window in self._windows(text, words, tokenizer)]
        scores = [torch.empty(0)] * len(windows)  # (words of the window, C) each
        sizes = [len(window.input_ids) for window in windows]
        for size in sorted(set(sizes)):  # windows of the same size need no padding
            alike = [index for index, other in enumerate(sizes) if other == size]
            for start in range(0, len(alike), batch_size):
                batch = alike[start : start + batch_size]
                for index, row in zip(batch, self._score([windows[index] for index in batch]), strict=True):
                    scores[index] = row[: len(windows[index].positions)]
        tagged = [TaggedText([], []) for _ in texts]
        for text, parts in groupby(zip(windows, scores, strict=True), key=lambda part: part[0].text):
            (tags,) = self.decode(torch.cat([rows for _, rows in parts])[None])
            tagged[text] = TaggedText(tags, entities_of(tags))
        return tagged

    def _best_tags(self, logits: Tensor, mask: Tensor) -> Tensor:
        transitions, C = getattr(self.config, "tag_transitions", None), logits.size(-1)
        if not transitions:
            return logits.argmax(-1)  # (B, W)
        scores = torch.full((C + 2, C + 2), -torch.inf, dtype=torch.double)
        for tag, followers in enumerate(transitions):
            for follower, score in followers.items():
                scores[tag, int(follower)] = score
        return _best_paths(logits, mask, scores)

    def _states_of_tokens(self, inputs: dict[str, Tensor]) -> Tensor:
        """The encoder's states ``(B, T, H)``: of the last layer, or the mean of the last layers."""
        layers, encoder = self.word_states.get("last_layers", 1), getattr(self, self.base_model_prefix)
        output = encoder(**inputs, output_hidden_states=layers > 1)
        if layers == 1:
            return output[0]
        below = output.hidden_states[1:-1]  # the first are the embeddings
        return torch.stack([output[0], *below[len(below) + 1 - layers :]]).mean(0)

    def _states_of_words(self, states: Tensor, positions: Tensor, lengths: Tensor | None) -> Tensor:
        """``(B, T, H) -> (B, W, H)``: at the first piece of each word, or the mean over its pieces."""
        first = positions[..., None]  # (B, W, 1)
        if not self.takes_mean_of_pieces:
            return states.gather(1, first.expand(-1, -1, states.size(-1)))
        if lengths is None:
            raise ValueError("this model takes the mean over the pieces of a word: it needs word_lengths")
        places = torch.arange(states.size(1), device=states.device)
        inside = (places >= first) & (places < first + lengths[..., None])  # (B, W, T)
        return (inside.to(states.dtype) @ states) / lengths.clamp(min=1)[..., None]

    def _states_of_lstms(self, states: Tensor, word_mask: Tensor) -> Tensor:
        """``(B, W, H) -> (B, W, 2 * size)``; the second LSTM reads the words from the last to the first."""
        places = torch.arange(states.size(1), device=states.device)
        lengths = word_mask.sum(1, keepdim=True).long()  # (B, 1)
        order = torch.where(places < lengths, lengths - 1 - places, places)[..., None]  # (B, W, 1)
        left, _ = self.bilstm[0](states)
        right, _ = self.bilstm[1](states.gather(1, order.expand(-1, -1, states.size(-1))))
        return torch.cat([left, right.gather(1, order.expand(-1, -1, right.size(-1)))], -1)

    def _score(self, windows: Sequence[Window]) -> Tensor:
        """Scores of the words of windows of the same size: ``(B, W, C)``."""

        def rows(name: str) -> Tensor:
            return pad_sequence([torch.tensor(getattr(one, name)) for one in windows], batch_first=True).to(self.device)

        inputs = {"input_ids": rows("input_ids"), "token_type_ids": rows("token_type_ids")}
        lengths = rows("lengths")  # (B, W), 0 for padding
        return self(**inputs, word_positions=rows("positions"), word_mask=lengths > 0, word_lengths=lengths).logits

    def _windows(self, text: int, words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Window]:
        probe = tokenizer("a", return_special_tokens_mask=True, return_token_type_ids=True)
        ids, types = probe["input_ids"], probe.get("token_type_ids") or [0] * len(probe["input_ids"])
        inner = [index for index, is_special in enumerate(probe["special_tokens_mask"]) if not is_special]
        first, last = inner[0], inner[-1] + 1
        capacity = self.config.eval_max_seq_length - first - len(ids[last:])
        pieces = _pieces_of_words(words, tokenizer, capacity)
        casing_types = getattr(self.config, "casing_types", None)
        type_of_word = [casing_types[_casing_of(word)] if casing_types else types[first] for word in words]
        overlap = self.config.window_overlap if self.config.window_overlap >= 0 else capacity // 4
        counts = [len(one) for one in pieces]
        for start, end, own_start, own_end in _window_borders(counts, capacity, overlap):
            shown = range(start, end)
            positions = list(accumulate((counts[word] for word in shown), initial=first))
            own = slice(own_start - start, own_end - start)
            yield Window(
                text,
                [*ids[:first], *(piece for word in shown for piece in pieces[word]), *ids[last:]],
                [*types[:first], *(type_of_word[word] for word in shown for _ in pieces[word]), *types[last:]],
                positions[own],
                counts[own_start:own_end],
            )


class BertCrfForNer(BertSoftmaxForNer):
    """The same with a linear-chain conditional random field: the tags of a text are its best legal sequence.

    ``config.crf_legal`` lists the tags that may follow each of the C tags, and the start; ``C + 1`` is the end.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        C = self.classifier.out_features
        self.crf = nn.Module()
        for name, shape in (("start_transitions", C), ("end_transitions", C), ("transitions", (C, C))):
            self.crf.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.post_init()

    def _best_tags(self, logits: Tensor, mask: Tensor) -> Tensor:
        C = logits.size(-1)
        scores = torch.zeros(C + 2, C + 2, dtype=torch.double)
        scores[:C, :C], scores[C, :C], scores[:C, C + 1] = (
            getattr(self.crf, name).detach() for name in ("transitions", "start_transitions", "end_transitions")
        )
        for tag, followers in enumerate(getattr(self.config, "crf_legal", None) or []):
            scores[tag, [other for other in range(C + 2) if other not in followers]] = -torch.inf
        return _best_paths(logits, mask, scores)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """Read entities from tags of any scheme, as ``conlleval`` does: BMES and BILOU have other letters for BIOES."""
    entities: list[Entity] = []
    before, type_before = "O", ""
    for word, tag in enumerate(tags):
        prefix, _, entity_type = tag.partition("-")
        if prefix in tuple("IMEL") and before in tuple("BIM") and entity_type == type_before:
            entities[-1] = entities[-1]._replace(last_word=word)
        elif prefix != "O":
            entities.append(Entity(entity_type, word, word))
        before, type_before = prefix, entity_type
    return entities


def _best_paths(logits: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """Search the best path (Viterbi 1967) in double precision: ``(B, W, C), (B, W) -> (B, W)``.

    Args:
        scores: ``(C + 2, C + 2)`` of tags that follow each other; row C is the start, column C + 1 the end.
    """
    C, emissions = logits.size(-1), logits.double()
    best, origins = scores[C, :C] + emissions[:, 0], []  # (B, C)
    for word in range(1, emissions.size(1)):
        arriving, origin = (best[:, :, None] + scores[:C, :C]).max(1)  # (B, C)
        is_word = mask[:, word, None]
        best = torch.where(is_word, arriving + emissions[:, word], best)
        origins.append(torch.where(is_word, origin, torch.arange(C)))
    path = [(best + scores[:C, C + 1]).argmax(1)]  # from the last word to the first, (B,) each
    for origin in reversed(origins):
        path.append(origin.gather(1, path[-1][:, None])[:, 0])
    return torch.stack(path[::-1], 1)


def _pieces_of_words(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[list[int]]:
    """Ids of the pieces of each word: at least one, at most ``limit``, and none that has a meaning for the encoder."""
    words = [re.sub("[\ud800-\udfff]", "\ufffd", word[:_LONGEST_WORD]) for word in words]
    pieces: list[list[int]] = [[] for _ in words]
    if tokenizer.is_fast:
        backend: Any = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        alone, spaced = (backend.encode(["a", word], is_pretokenized=True).ids for word in ("a", " a"))
        if alone != spaced == backend.encode("a a").ids:  # the tokenizer reads words as if no space were between them
            words = [f" {word}" if word and word[0] != " " else word for word in words]
        encoding = backend.encode(words, is_pretokenized=True, add_special_tokens=False)
        for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[word].append(piece)
    else:
        ids_of: Any = tokenizer.convert_tokens_to_ids
        pieces = [ids_of(tokenizer.tokenize(word)) for word in words]
    stand_ins = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id)
    unknown = next(one for one in stand_ins if isinstance(one, int))
    reserved = {getattr(tokenizer, name) for name in _STRUCTURE}
    return [[unknown if piece in reserved else piece for piece in one[:limit] or [unknown]] for one in pieces]


def _window_borders(counts: Sequence[int], capacity: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Divide a text into windows: the words from start to end, and those that are tagged there (ends exclusive).

    Args:
        counts: number of pieces of each word.
        capacity, overlap: pieces of a window, and pieces that neighbouring windows share, at most.
    """
    borders = list(accumulate(counts, initial=0))  # pieces before each word
    shown: list[tuple[int, int]] = []
    start = end = 0
    while end < len(counts):
        if shown:
            earliest = bisect_left(borders, borders[end + 1] - capacity)  # so that the window also has the word at end
            start = max(bisect_left(borders, borders[end] - overlap), earliest)
        end = bisect_right(borders, borders[start] + capacity) - 1
        shown.append((start, end))
    own_start = 0
    for index, (start, end) in enumerate(shown):
        is_last = index + 1 == len(shown)
        own_end = end if is_last else bisect_left(borders, (borders[shown[index + 1][0]] + borders[end]) / 2)
        if own_end > own_start:
            yield start, end, own_start, own_end
        own_start = own_end


def _casing_of(word: str) -> int:
    """0: no capitals; 1: the first letter only; 2: all letters; 3: anything else."""
    letters = "".join(filter(str.isalpha, word))
    rest = letters[1:]
    if letters == letters.lower():
        return 0
    if rest == rest.lower():
        return 1
    return 2 if letters == letters.upper() else 3
