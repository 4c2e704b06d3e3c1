"""A trained model on raw text: entities with character offsets, from any number of texts of any length."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from inference.asked import Asked
from models.tagger import Tagger, casing_types
from processors.examples import Example
from processors.features.build import FeatureSpec, build_feature_arrays, default_overlap
from processors.features.dataset import FeatureDataset
from processors.features.windows import layout_of_tokenizer
from processors.text.text_files import RawText, without_surrogates
from processors.text.word_cutting import TextPiece, WordCutter, cut_into_lines, cut_into_pieces
from tools.decoding import TaggedDocument, Thresholds, batches_of_a_size, decoded_documents, stitched_emissions
from tools.heads import check_has_model, has_weights, head_of_folder, head_options
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.settings import EVAL_WINDOW, Settings

logger = logging.getLogger(__name__)
LOOK_AHEAD = 262_144  # characters of text that are held and sorted by length
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
_COST_PER_TEXT = 64  # in characters, so that empty texts count too


class FoundEntity(NamedTuple):
    """An entity in a text.

    Args:
        start, end: character offsets in the text as given, the end exclusive.
        surface: these characters.
        confidence: probability of exactly this entity, from the CRF's lattice or the softmax.
    """

    type: str
    start: int
    end: int
    surface: str
    confidence: float


class NerPredictor:
    """Finds entities in raw text.

    ``NerPredictor.load("outputs/run")(["Anna went to Rome."])``

    Args:
        model, tokenizer: a trained tagger; see `load`.
        markup: tag scheme of its tags.
        cutter: splits text into words.
        max_seq_length: tokens per window; longer texts become several windows.
        window_overlap: word pieces that neighbouring windows share; -1 for a quarter of a window.
        batch_tokens: tokens per batch of the encoder; the default depends on the device.
        context_size: of a model with ``--document_context``: tokens of context on each side of a sentence, at most; 0:
            as many as fit. A text is then a document, and its lines are its sentences. ``None``: no context.
        thresholds: give candidates above these; ``None``: what the head predicts.
    """

    def __init__(
        self,
        model: Tagger,
        tokenizer: PreTrainedTokenizerBase,
        markup: str,
        cutter: WordCutter,
        max_seq_length: int = EVAL_WINDOW,
        window_overlap: int = -1,
        batch_tokens: int | None = None,
        context_size: int | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens {batch_tokens} is not positive")
        self.model, self.tokenizer, self.cutter = model.eval(), tokenizer, cutter
        self.max_seq_length = max_seq_length
        layout = layout_of_tokenizer(tokenizer, model.config.model_type, list(casing_types(model)))
        overlap = default_overlap(layout.capacity(max_seq_length)) if window_overlap < 0 else window_overlap
        self._spec, self._markup = FeatureSpec(max_seq_length, overlap, layout, context_size), markup
        self._thresholds = thresholds
        self._batch_tokens = batch_tokens or _BATCH_TOKENS.get(model.device.type, _BATCH_TOKENS["cpu"])

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        dtype: str = "fp32",
        batch_tokens: int | None = None,
        word_unit: str | None = None,
        head: str | type[Tagger] = "",
        asked: Asked | None = None,
        decode: str = "",
        transition_biases: str = "",
    ) -> Self:
        """Load the folder of a run, or one of its checkpoints.

        Args:
            folder: an ``output_dir``, or a token classifier whose config names its labels; or an ONNX file of
                `inference.export_onnx` with the tokenizer next to it, or a folder with nothing but these two.
            device: by default a GPU if there is one.
            dtype: ``fp32``, ``bf16`` or ``int8``; see `set_encoder_precision`.
            batch_tokens: tokens per batch of the encoder; the default depends on the device.
            word_unit: instead of the unit of the training; another one has no kept words.
            head: the head of the folder if it is not built in, as ``module:Class`` or the class.
            asked: which entities to give, by their probability; default: those that the head predicts.
            decode: of a softmax head: ``argmax`` or ``viterbi``, instead of that of the folder.
            transition_biases: with ``viterbi``: file of biases, instead of those of the folder.

        Raises:
            ValueError: parts of the folder are missing or do not match, or the head has no such options.
        """
        named = {"decode": decode, "transition_biases": transition_biases}
        options = {name: value for name, value in named.items() if value}
        settings = Settings.of(output_dir=str(folder), word_unit=word_unit or "")
        if graph := _graph_of(Path(folder)):
            run, model, tokenizer = _load_graph(settings, graph, device, dtype, head, options)
        else:
            where = _device(device)
            check_has_model(folder, "name the output_dir of a run")
            found = head_of_folder(Path(folder), head)
            run = Run.of(replace(settings, head=head_options(found, **options)))
            run, model, tokenizer = load_model_and_tokenizer(run, found)
            set_encoder_precision(model, dtype, where)
            torch.nn.Module.to(model, where)
        if not run.corpus.word_unit:
            logger.warning(
                "%s does not say which word unit it was trained with: assuming characters for texts that are "
                "Chinese or Japanese, otherwise words; set word_unit if that is wrong",
                folder,
            )
        cutter = WordCutter(run.corpus.word_unit or "auto", run.corpus.kept_words)
        windows = run.eval_max_seq_length, run.window_overlap
        thresholds = asked.thresholds(graph.parent if graph else Path(folder), model.types) if asked else None
        return cls(model, tokenizer, run.markup, cutter, *windows, batch_tokens, run.context_size, thresholds)

    @property
    def has_context(self) -> bool:
        """Whether the lines of a text are context of each other."""
        return self._spec.context_size is not None

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Compile and initialise all kernels, so that no text waits for it."""
        self(["a", "a " * self.max_seq_length])
        C, device = self.model.num_scores(self.model.config), self.model.device
        for B in (1, 64):  # heads may use other kernels for many rows
            logits = torch.zeros(B, 2, C, device=device)  # (B, W, C)
            mask = torch.ones(B, 2, dtype=torch.bool, device=device)  # (B, W)
            self.model.warm_up(logits, mask)

    def __call__(self, texts: Sequence[str]) -> list[list[FoundEntity]]:
        """The entities of each text."""
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, got a string; put it into a list")
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str], look_ahead: int = LOOK_AHEAD) -> Iterator[list[FoundEntity]]:
        """The entities of each text, in order, while texts are read.

        Memory holds ``look_ahead`` characters of text with what is computed from them, and the longest text with its
        entities. A text of up to 32,768 characters is decoded at once, a longer one in overlapping pieces of that size.
        With ``--document_context``, a text is held as a whole, and each line is decoded by itself.
        Lone surrogates are read as U+FFFD, with a warning; offsets stay the same.

        Args:
            look_ahead: characters to read before the first result, so that texts can be batched by length.
        """
        waiting: list[tuple[str, TextPiece]] = []
        found: list[FoundEntity] = []
        held = 0
        for item in without_surrogates((RawText(None, text) for text in texts), "texts"):
            text = item.text
            for piece in (cut_into_lines if self.has_context else cut_into_pieces)(text, self.cutter):
                waiting.append((text, piece))
                held += _COST_PER_TEXT + sum(map(len, piece.words))
                if held >= look_ahead and (piece.is_last or not self.has_context):
                    yield from self._finished_texts(waiting, found)
                    waiting, held = [], 0
        yield from self._finished_texts(waiting, found)

    def tag_words(self, texts: Sequence[Sequence[str]], documents: Sequence[str] = ()) -> list[list[str]]:
        """The tags of texts that are already split into words, as ``--do_predict`` predicts them.

        All texts are held in memory, and each is decoded at once, whatever its length.

        Args:
            documents: name of the document of each text; with ``--document_context``, neighbouring texts of a document
                are context of each other.
        """
        if any(isinstance(words, str) for words in texts):
            raise TypeError("expected a list of words for each text, got a string")
        return [tagged.tags for tagged in self._tag(texts, documents)]

    def _finished_texts(
        self, waiting: list[tuple[str, TextPiece]], found: list[FoundEntity]
    ) -> Iterator[list[FoundEntity]]:
        """Entities of the texts that end in these pieces; ``found`` holds those of an unfinished text."""
        documents, number = [], 0
        for _, piece in waiting:
            is_whole = piece.own_end - piece.own_start == len(piece.words)
            documents.append(f"text {number}" if is_whole else "")  # pieces of a line overlap
            number += piece.is_last
        found_in_pieces = self._tag([piece.words for _, piece in waiting], documents)
        for (text, piece), tagged in zip(waiting, found_in_pieces, strict=True):
            reached = max((one.end for one in found), default=0)  # entities of the previous piece may extend into this
            for entity, confidence in zip(tagged.entities, tagged.confidences, strict=True):
                start, end = piece.offsets[entity.first_word][0], piece.offsets[entity.last_word][1]
                if piece.own_start <= entity.first_word < piece.own_end and start >= reached:
                    found.append(FoundEntity(entity.type, start, end, text[start:end], confidence))
            if piece.is_last:
                yield found.copy()
                found.clear()

    @torch.inference_mode()
    def _tag(self, texts: Sequence[Sequence[str]], documents: Sequence[str] = ()) -> list[TaggedDocument]:
        examples = [
            Example("", list(words), text="", offsets=[], document=document)
            for words, document in zip(texts, documents or [""] * len(texts), strict=True)
        ]
        dataset = FeatureDataset(build_feature_arrays(examples, self._spec, self.tokenizer), self._spec.layout)
        windows, every = range(len(dataset)), range(dataset.num_documents)
        batches = batches_of_a_size(dataset.lengths, self._batch_tokens)
        emissions = stitched_emissions(self.model, dataset, windows, batches, self.model.device)
        found = decoded_documents(
            self.model, dataset, emissions, every, self._markup, True, thresholds=self._thresholds, words=texts
        )
        return list(found)


def _graph_of(path: Path) -> Path | None:
    """The ONNX file that a path names: itself, or that of a folder that has no other model."""
    file = path if path.suffix == ".onnx" else path / "model.onnx"
    return file if file is path or (file.is_file() and not has_weights(path)) else None


def _load_graph(
    settings: Settings,
    path: Path,
    device: str | torch.device | None,
    dtype: str,
    head: str | type[Tagger],
    options: Mapping[str, str],
) -> tuple[Run, Tagger, PreTrainedTokenizerBase]:
    """See `inference.onnx_model.load_onnx`."""
    if device is not None and torch.device(device).type != "cpu":
        raise ValueError(f"{path} runs on the CPU, not on {device}")
    if dtype != "fp32":
        raise ValueError(f"{path} has its own precision; {dtype} is for models of torch")
    try:
        from inference.onnx_model import load_onnx
    except ImportError as error:
        raise ValueError(f"{path} needs onnxruntime ({error}): pip install onnxruntime") from error
    return load_onnx(Run.of(settings), path, head, **options)


def _device(name: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not a torch device; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no GPU")
    return device


PRECISIONS = ("fp32", "bf16", "int8")


def set_encoder_precision(model: Tagger, precision: str, device: torch.device) -> None:
    """Convert the encoder in place, for inference only.

    Args:
        precision: ``fp32``, ``bf16``, or ``int8`` (linear layers: weights per channel, activations dynamically).
        device: where the model will run.

    Raises:
        ValueError: the precision is unknown, or int8 on another device than a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    encoder: nn.Module = getattr(model, model.base_model_prefix)
    if precision == "bf16":
        if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            logger.warning("this CPU has no bfloat16 instructions: bf16 will be slower than fp32")
        encoder.to(torch.bfloat16)
    if precision == "int8":
        if device.type != "cpu":
            raise ValueError(f"int8 runs on a CPU, not on {device}; use bf16")
        _quantize(encoder)


def _quantize(encoder: nn.Module) -> None:
    with warnings.catch_warnings():  # deprecated in favour of torchao, whose int8 needs a compiler to be fast on a CPU
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8, inplace=True)
