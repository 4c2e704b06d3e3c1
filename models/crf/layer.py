"""The CRF layer: as that of pytorch-crf, but fast, complete and aware of the tags that may follow each other."""

from collections.abc import Callable
from typing import Self, overload

import torch
from torch import Tensor

from . import differentiable as in_torch
from . import posterior
from .base import Base
from .chains import NO_PATH, SCALED, Chains, check_allowed, check_inputs, raise_for_rows
from .graph import decode_in_graph
from .lattice import Lattice, exact_type, lattice_of
from .nbest import nbest_paths
from .ops import best_paths, chain_value, entropy, marginals, savable
from .paths import PADDING, Paths, rows_as_lists
from .spans import ProbableSpans, SpanTags, probable_spans, span_probability


class CRF(Base):  # type: ignore[misc]
    """Linear-chain conditional random field (Lafferty, McCallum and Pereira 2001).

    Parameters, state dict, signatures, reductions and errors are those of pytorch-crf 0.7.2. Beyond it, a masked word
    does not exist for the chain wherever the mask has its holes, and a row without words counts zero.

    Shapes are given as (B, W, C): B rows, W words, C tags; if not `batch_first`, the first two change places.
    Scores in half precision are computed in float32, also inside autocast; float64 stays float64.

    Args:
        num_tags: C.
        batch_first: whether tensors come as (B, W, ...) and not as (W, B, ...).
        legal: (C + 2, C + 2) bool, see `set_legal`.

    Raises:
        ValueError: `num_tags` is not positive, or `legal` has another shape or type.
    """

    def __init__(self, num_tags: int, batch_first: bool = False, legal: Tensor | None = None) -> None:
        super().__init__(num_tags, batch_first)
        self.legal: Tensor | None
        self.register_buffer("legal", None, persistent=False)
        self._deferred_legal: Tensor | None = None
        self.set_legal(legal)

    def set_legal(self, legal: Tensor | None) -> None:
        """Allow only some transitions from now on; None allows all.

        An illegal path has probability zero: it counts in no sum and is never decoded. The parameters stay as they are.

        Args:
            legal: (C + 2, C + 2) bool: [i, j] tells whether tag j may follow tag i; row C is the start of a
                sequence, column C + 1 its end.

        The matrix is no part of the state dict. While the layer is on the meta device, where transformers builds what
        it then loads, the matrix is kept aside and used once the parameters exist. One that was itself made there has
        no values: set it again after loading, otherwise the first use raises RuntimeError.

        Raises:
            ValueError: `legal` has another shape or type.
        """
        size = self.num_tags + 2
        self._deferred_legal = None
        if legal is None:
            self.legal = None
        elif legal.shape != (size, size) or legal.dtype != torch.bool:
            raise ValueError(
                f"legal must be a bool tensor of shape ({size}, {size}), got {legal.dtype} of {tuple(legal.shape)}"
            )
        elif legal.is_meta or self.transitions.is_meta:
            self.legal, self._deferred_legal = None, legal
        else:
            with torch.inference_mode(False):  # a matrix that was made there could not be saved for gradients
                self.legal = legal.detach().to(self.transitions.device, copy=True).contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        legal = self.legal
        super()._apply(fn, recurse)
        if self.legal is not None and self.legal.is_meta:
            self.set_legal(legal)  # which keeps its values
        return self

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor | None = None,
        mask: Tensor | None = None,
        reduction: str = "sum",
        allowed: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The log-likelihood of tag sequences, or of sets of them.

        Args:
            emissions: (B, W, C) scores.
            tags: (B, W) the tags; those of masked words are not read.
            mask: (B, W), not zero where there is a word; all of them if None.
            reduction: none | sum | mean | token_mean: per row, over rows, averaged over rows, or over words.
            allowed: (B, W, C) bool, instead of `tags`: the tags that each word may have. The result is then the
                log-probability that all words have such tags (Tsuboi et al. 2008); a word with all tags allowed is
                an unlabelled word.
            weight: (C,) the weight of each tag. The log-likelihood is a sum over words, of the log-probability of each
                tag given those before it (the chain rule), and these are weighted. Computed in plain torch: slower.

        Returns:
            (B,) for reduction none, else (). -inf, and without a gradient, for tags of an illegal path.

        Raises:
            ValueError: shapes do not fit, the reduction is unknown, a row has no legal path or a tag that does not
                exist. On a GPU, where looking would stop the stream, the last two raise at a later call.
        """
        self._validate(emissions, tags=tags, mask=mask)
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        if (tags is None) == (allowed is None):
            raise ValueError("expected either tags or allowed")
        chains = self._chains(emissions, mask)
        if weight is not None:
            if tags is None or weight.shape != (self.num_tags,):
                raise ValueError(f"weight must have shape ({self.num_tags},) and needs tags, got {tuple(weight.shape)}")
            chains, given = savable(chains, self._rows_first(tags).long())
            assert given is not None
            llh = in_torch.log_factors(chains, given, weight)  # (B,)
        elif tags is not None:
            llh = chain_value(chains, self._rows_first(tags).long())  # (B,)
        else:
            # Both values may be in the thousands where their difference is next to nothing.
            exact = self._chains(emissions.to(exact_type(emissions.device)), mask, allowed)
            llh = chain_value(exact) - chain_value(exact._replace(allowed=None))  # (B,)
        llh = _as(llh, chains.emissions.dtype)
        if reduction in ("none", "sum"):
            return llh if reduction == "none" else llh.sum()
        B, W, _ = chains.emissions.shape
        if reduction == "mean":
            return llh.sum() / B
        return llh.sum() / (max(B * W, 1) if chains.mask is None else chains.mask.sum().clamp(min=1))

    @overload
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, nbest: None = None, allowed: Tensor | None = None
    ) -> list[list[int]]: ...

    @overload
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, *, nbest: int, allowed: Tensor | None = None
    ) -> list[list[tuple[list[int], float]]]: ...

    def decode(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        nbest: int | None = None,
        allowed: Tensor | None = None,
    ) -> list[list[int]] | list[list[tuple[list[int], float]]]:
        """The best tag sequence of each row, as lists of its words' tags.

        Args:
            emissions, mask, allowed: as for `forward`; `allowed` restricts the tags of words.
            nbest: how many sequences of each row to return, best first, each with its score; fewer if there are not
                so many.

        Returns:
            For each row a list of tags; with `nbest` a list of (tags, score).

        Raises:
            ValueError: shapes do not fit, `nbest` is not positive, or a row has no legal path.
        """
        tags, scores, mask = self._search(emissions, mask, nbest, allowed)
        if tags.device.type != "cpu":  # there no backend has looked: the lists are the first to wait for the result
            best = scores if nbest is None else scores[:, 0]
            raise_for_rows(torch.where(best > float("-inf"), SCALED, NO_PATH))
        words = tags.cpu().numpy()  # makes lists several times faster than torch
        there = None if mask is None else mask.cpu().numpy()
        if nbest is None:
            return rows_as_lists(words, there, self.num_tags)
        ranked = [rows_as_lists(words[:, :, rank], there, self.num_tags) for rank in range(nbest)]
        return [
            [(ranked[rank][row], score) for rank, score in enumerate(row_scores) if score > float("-inf")]
            for row, row_scores in enumerate(scores.tolist())
        ]

    def best_paths(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        nbest: int | None = None,
        allowed: Tensor | None = None,
    ) -> Paths:
        """As `decode`, as tensors that stay on their device."""
        tags, scores, _ = self._search(emissions, mask, nbest, allowed)
        return Paths(self._turned(tags), scores)

    def _search(
        self, emissions: Tensor, mask: Tensor | None, nbest: int | None, allowed: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The best paths (B, W) or (B, W, nbest), their scores, and the mask of the chains."""
        if nbest is not None and nbest < 1:
            raise ValueError(f"nbest must be positive, got {nbest}")
        self._validate(emissions, mask=mask)
        chains = self._chains(emissions, mask, allowed)
        if nbest is None:
            if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():  # dynamo always says yes
                return *decode_in_graph(chains, PADDING), chains.mask
            return *best_paths(chains, PADDING), chains.mask
        with torch.no_grad():
            lattice = self._lattice(chains)
            tags, scores = nbest_paths(lattice, nbest)
            raise_for_rows(torch.where(scores[:, 0].isfinite(), SCALED, NO_PATH))
            tags = tags.masked_fill((scores == float("-inf"))[:, None], PADDING)
            return lattice.at_columns(tags, PADDING), scores.to(chains.emissions.dtype), chains.mask

    def marginals(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        pairwise: bool = False,
        allowed: Tensor | None = None,
        differentiable: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """P(tag) of each word, (B, W, C), 0 where masked.

        With `pairwise` also P(tag i, next word's tag j), (B, W, C, C), found at the first of the two words and 0 at
        the last one and where masked.

        Args:
            emissions, mask, allowed: as for `forward`; with `allowed` the probabilities are conditional on it.
            differentiable: whether gradients flow through them; computed in plain torch then: slower.

        Raises:
            ValueError: shapes do not fit, or a row has no legal path.
        """
        self._validate(emissions, mask=mask)
        chains = self._chains(emissions, mask, allowed)
        if differentiable:
            found = in_torch.expectations(savable(chains, None)[0], pairwise)
            unary = self._turned(found.unary)
            return unary if found.pairs is None else (unary, self._turned(found.pairs.to(unary.dtype)))
        unary = self._turned(marginals(chains))
        if not pairwise:
            return unary
        with torch.no_grad():
            return unary, self._turned(posterior.pairs(self._lattice(chains), unary.dtype))

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """log sum of exp(score) over all legal paths: (B,), 0 for a row without words. Differentiable.

        Raises:
            ValueError: shapes do not fit, or a row has no legal path.
        """
        self._validate(emissions, mask=mask)
        return chain_value(self._chains(emissions, mask, allowed))

    def entropy(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        allowed: Tensor | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """The entropy of the distribution over paths, in nats: (B,). See `marginals` for `differentiable`.

        Raises:
            ValueError: shapes do not fit, or a row has no legal path.
        """
        self._validate(emissions, mask=mask)
        chains = self._chains(emissions, mask, allowed)
        if differentiable:
            return in_torch.expectations(savable(chains, None)[0], pairwise=False).entropy
        return entropy(chains)

    @torch.no_grad()
    def sample(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        n: int = 1,
        generator: torch.Generator | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Independent tag sequences from the distribution over paths: (n, B, W), PADDING where masked.

        Raises:
            ValueError: shapes do not fit, or a row has no legal path.
        """
        self._validate(emissions, mask=mask)
        lattice = self._lattice(self._chains(emissions, mask, allowed))
        tags = lattice.at_columns(posterior.sample(lattice, n, generator), PADDING)  # (B, W, n)
        return self._turned(tags).movedim(2, 0).contiguous()  # (n, B, W)

    @torch.no_grad()
    def span_confidence(
        self,
        emissions: Tensor,
        mask: Tensor | None,
        spans: Tensor,
        inside: Tensor,
        before: Tensor | None = None,
        after: Tensor | None = None,
    ) -> Tensor:
        """The probability that words of a span have certain tags, and its neighbours too: (N,), exact.

        It is the share of all paths that pass there, not a product over words. That exactly this entity is in the tag
        sequence means that the words have its tags and that no neighbour extends it: so `inside` holds, in the scheme
        BIO, B-X for the first word and I-X for the others, and `after` holds all tags but I-X.

        Args:
            emissions, mask: as for `forward`.
            spans: (N, 3) row, first and last column of each span; neither of the two columns may be masked.
            inside: (N, L, C) bool, the tags that the k-th word of the span may have; L is the length of the longest.
            before: (N, C) bool, the tags that the word before the span may have, if there is one; all if None.
            after: (N, C) bool, likewise for the word after.

        Raises:
            ValueError: shapes do not fit, a span does not lie in its row's words, or a row has no legal path.
        """
        self._validate(emissions, mask=mask)
        chains = self._chains(emissions, mask)
        probability = span_probability(self._lattice(chains), spans, inside, before, after)
        return probability.to(chains.emissions.dtype)

    @torch.no_grad()
    def probable_spans(self, emissions: Tensor, mask: Tensor | None, tags: SpanTags, threshold: float) -> ProbableSpans:
        """All entities with a probability of at least `threshold`, of any length; exact, as `span_confidence`.

        Args:
            emissions, mask: as for `forward`.
            tags: the tags that make an entity, for each type.
            threshold: more than 0, up to 1.

        Raises:
            ValueError: shapes do not fit, the threshold is out of range, or a row has no legal path.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold {threshold} is not in (0, 1]")
        self._validate(emissions, mask=mask)
        return probable_spans(self._lattice(self._chains(emissions, mask)), tags, threshold)

    def _chains(self, emissions: Tensor, mask: Tensor | None, allowed: Tensor | None = None) -> Chains:
        """What the backends compute on: rows first, one floating-point type, the mask bool."""
        if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(
                "transforms of torch.func (grad, vmap, jvp, ...) do not work on a CRF: use torch.autograd, and batches"
            )
        if self._deferred_legal is not None:
            if self._deferred_legal.is_meta:
                raise RuntimeError("the legal transitions were made on the meta device: call set_legal again")
            self.set_legal(self._deferred_legal)
        start, end, transitions = map(self._parameter, ("start_transitions", "end_transitions", "transitions"))
        dtype = torch.float64 if torch.float64 in (emissions.dtype, transitions.dtype) else torch.float32
        if mask is not None:
            mask = self._rows_first(mask)
            mask = mask if mask.dtype == torch.bool else mask != 0
        if allowed is not None:
            allowed = self._allowed(emissions, allowed)
        emissions = _as(self._rows_first(emissions), dtype)
        row, word, tag = emissions.stride()
        if tag != 1 or min(row, word) < self.num_tags:  # channels first, expanded, overlapping; the rest kernels take
            emissions = emissions.contiguous()
        return Chains(
            emissions,
            _as(start, dtype).contiguous(),
            _as(end, dtype).contiguous(),
            _as(transitions, dtype).contiguous(),
            mask,
            self._buffers["legal"],
            allowed,
        )

    def _parameter(self, name: str) -> Tensor:
        """As an attribute of that name, which alone takes a microsecond to be looked up."""
        found = self._parameters.get(name)  # nothing where the module is a replica, or the parameter computed
        return getattr(self, name) if found is None else found

    def _lattice(self, chains: Chains) -> Lattice:
        return lattice_of(chains, exact_type(chains.emissions.device))

    def _allowed(self, emissions: Tensor, allowed: Tensor) -> Tensor:
        check_allowed(emissions, allowed)
        return self._rows_first(allowed).contiguous()

    def _rows_first(self, tensor: Tensor) -> Tensor:
        return tensor if self.batch_first else tensor.transpose(0, 1)

    _turned = _rows_first  # the same exchange gives results the order of their arguments

    def _validate(self, emissions: Tensor, tags: Tensor | None = None, mask: Tensor | None = None) -> None:
        check_inputs(self.num_tags, self._parameter("transitions").device, emissions, tags, mask)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
