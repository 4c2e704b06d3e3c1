"""The casing of words as token types of the encoder: for uncased encoders of text that has capitals."""

import logging

from transformers import PreTrainedTokenizerBase

from models.tagger import Tagger
from processors.casing import CASINGS
from tools.arguments import NerArguments

logger = logging.getLogger(__name__)


def casing_types(model: Tagger) -> list[int]:
    """The token types that stand for the casings of `processors.casing`; none where the model does not tell them."""
    return list(getattr(model.config, "casing_types", []))


def tell_casing(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a model that is to be trained types for the casings, where asked to, and tells ``args`` what it has.

    Words without capitals keep type 0, with which the encoder was pretrained; the other types begin as its copies.

    Raises:
        ValueError: the family has no embeddings of token types, or the trained model has no types for casings.
    """
    if args.casing and not casing_types(model):
        if not args.do_train:
            raise ValueError(f"--casing: the model in {args.output_dir} was trained without it")
        if tokenizer.tokenize("Rome") != tokenizer.tokenize("rome"):
            logger.warning("--casing: the tokenizer tells capital letters apart by itself, so little is to be gained")
        try:
            model.config.casing_types = [0, *model.add_token_types(CASINGS - 1)]
        except ValueError as error:
            raise ValueError(f"--casing: {error}") from None
    args.casing_types = casing_types(model)
