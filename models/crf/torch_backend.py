"""The backend for any device that torch knows: a loop over words, a few operators a step, no autograd graph.

Scaled probability space (docs/crf.md), and log space for rows where a number might vanish.
All of it in double precision, where the device has it: neither autocast nor TF32 rounds the factors of such products.
"""

import math

import torch
from torch import Tensor

from .chains import (
    LOG_SPACE,
    NO_GRADIENT,
    NO_PATH,
    NO_SUCH_TAG,
    SCALED,
    Chains,
    Gradients,
    RowGradients,
    State,
    raise_for_rows,
)
from .lattice import Lattice, exact_type, lattice_of, log_backward, log_forward, log_pairs, log_partition

RESCALED = 4  # words between two divisions


class TorchBackend:
    """See `Backend`."""

    with_gradients = None

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        value, state = self.evaluate(chains, tags)
        raise_for_rows(state.mode)
        return value, state

    def evaluate(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        """As `forward`, but the faults of rows are in their mode alone."""
        B, W, C = chains.emissions.shape
        emissions = chains.emissions
        if B == 0 or W == 0:
            mode = torch.full((B,), NO_GRADIENT, dtype=torch.uint8, device=emissions.device)
            return emissions.new_zeros(B), State(emissions.new_empty(B, W, C), mode)
        lattice = lattice_of(chains, exact_type(emissions.device))
        value, alpha = _scaled_forward(lattice, emissions.dtype)  # (B,), (B, W, C)

        vanishing = value.isnan()  # (B,)
        if vanishing.any():
            rows = _select(lattice, vanishing)
            value = value.masked_scatter(vanishing, log_partition(rows, log_forward(rows)))
        value = value.masked_fill(value == math.inf, math.nan)
        mode = torch.where(vanishing, LOG_SPACE, SCALED)  # (B,)
        mode = mode.masked_fill(value == -math.inf, NO_PATH)
        if tags is not None:
            path, known = path_score(lattice, tags)  # (B,), (B,)
            value = path - value  # (B,)
            mode = mode.masked_fill((value == -math.inf) & (mode != NO_PATH), NO_GRADIENT)
            mode = mode.masked_fill(~known, NO_SUCH_TAG)
        empty = lattice.lengths == 0  # (B,)
        mode = mode.masked_fill(empty, NO_GRADIENT).to(torch.uint8)
        return value.masked_fill(empty, 0).to(emissions.dtype), State(alpha, mode)

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        return self.row_gradients(chains, tags, state).weighted(grad)

    def row_gradients(self, chains: Chains, tags: Tensor | None, state: State) -> RowGradients:
        B, W, C = chains.emissions.shape
        exact = exact_type(chains.emissions.device)
        if B == 0 or W == 0:
            return RowGradients(torch.zeros_like(chains.emissions), state.alpha.new_zeros(B, C + 2, C, dtype=exact))
        lattice = lattice_of(chains, exact)
        unary, pairs = _scaled_backward(lattice, state.alpha.to(exact), state.mode == SCALED)
        vanishing = state.mode == LOG_SPACE  # (B,)
        if vanishing.any():
            unary[vanishing], pairs[vanishing] = _log_marginals(_select(lattice, vanishing))
        if tags is None:
            unary, pairs = -unary, -pairs
        else:
            path_unary, path_pairs = _path_counts(lattice, tags, state.mode != NO_GRADIENT)
            unary, pairs = unary - path_unary, pairs - path_pairs
        last = (lattice.lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, C)  # (B, 1, C)
        unary = torch.where(lattice.present()[:, :, None], unary, 0)  # (B, W, C)
        sums = torch.cat([pairs, unary[:, :1], unary.gather(1, last)], 1)  # (B, C + 2, C)
        emissions = torch.empty_like(chains.emissions).copy_(lattice.at_columns(unary, 0))
        return RowGradients(emissions, sums)

    @torch.no_grad()
    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, _ = chains.emissions.shape
        if B == 0 or W == 0:
            return chains.emissions.new_full((B, W), padding, dtype=torch.long), chains.emissions.new_zeros(B)
        lattice = lattice_of(chains, chains.emissions.dtype)
        path, score = _viterbi(lattice)
        empty = lattice.lengths == 0  # (B,)
        raise_for_rows(torch.where(empty | score.isfinite(), SCALED, NO_PATH))
        return lattice.at_columns(path, padding), score.masked_fill(empty, 0)


def _select(lattice: Lattice, rows: Tensor) -> Lattice:
    potentials, scores, lengths, columns = lattice
    return Lattice(potentials[rows], scores, lengths[rows], columns[rows])


def _weights(scores: Tensor) -> tuple[Tensor, Tensor]:
    """exp(scores - top), and top."""
    top = scores.amax()
    top = torch.where(top == -math.inf, 0, top)
    return (scores - top).exp(), top


def _factors(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """exp(potentials - top) (B, W, C), and top (B, W, 1), one of each word."""
    top = lattice.potentials.amax(2, keepdim=True)
    return (lattice.potentials - torch.where(top == -math.inf, 0, top)).exp(), top


def _scaled_forward(lattice: Lattice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The log-partition (B,), NaN where a number might vanish in `dtype`, and the forward variables (B, W, C) in it.

    Variables are divided by their sum at every `RESCALED` words only, and written in place: a step is three operators.
    """
    weights, top_score = _weights(lattice.scores)
    factors, tops = _factors(lattice)
    B, W, C = factors.shape
    arriving, alpha = factors.new_ones(W, B, C), factors.new_empty(W, B, C)
    masses = factors.new_ones(W, B, 1)
    steps = zip(arriving.unbind(), factors.unbind(1), alpha.unbind(), masses.unbind(), strict=True)
    before = None
    for k, (arrive, factor, after, mass) in enumerate(steps):
        if before is not None:
            torch.mm(before, weights, out=arrive)  # (B, C)
        torch.mul(arrive, factor, out=after)  # (B, C)
        before = after
        if k % RESCALED == RESCALED - 1:
            torch.sum(after, 1, keepdim=True, out=mass)  # (B, 1)
            before = after / mass  # (B, C)
    arriving, alpha, mass = arriving.transpose(0, 1), alpha.transpose(0, 1), masses.transpose(0, 1)  # (B, W, ...)

    present = lattice.present()  # (B, W)
    smallest = math.sqrt(torch.finfo(dtype).tiny)
    vanishing = (arriving > 0) & (lattice.potentials > -math.inf) & ~(alpha >= smallest)  # (B, W, C)
    lost = ~(alpha.sum(2) >= math.sqrt(smallest))  # (B, W) so that the way back has room for as many words
    vanishing_weights = ((lattice.scores > -math.inf) & ~(weights >= smallest)).any()
    doubtful = ((vanishing.any(2) | lost) & present).any(1) | vanishing_weights  # (B,)

    last = (lattice.lengths - 1).clamp(min=0)[:, None]  # (B, 1)
    earlier = torch.arange(W, device=alpha.device) < last  # (B, W)
    value = alpha.sum(2).gather(1, last)[:, 0].log()  # (B,)
    value = value + torch.where(earlier, mass[:, :, 0].log(), 0).sum(1)
    value = value + torch.where(present, tops[:, :, 0], 0).sum(1) + last[:, 0] * top_score
    return value.masked_fill(doubtful & (lattice.lengths > 0), math.nan), alpha.to(dtype)


def _scaled_backward(lattice: Lattice, alpha: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The marginals (B, W, C), and the sums over words of the pairwise ones (B, C, C); zero but for `rows` (B,)."""
    weights, _ = _weights(lattice.scores)
    factors, _ = _factors(lattice)
    B, W, C = alpha.shape
    place = torch.arange(W, device=alpha.device)
    reached = alpha > 0  # (B, W, C) what no path reaches must not set the scale
    ends = (reached & (place == lattice.lengths[:, None] - 1)[:, :, None]).to(alpha.dtype)  # (B, W, C)
    inner = (reached & (place < lattice.lengths[:, None] - 1)[:, :, None]).to(alpha.dtype)  # (B, W, C)
    betas, leaving = alpha.new_empty(W, B, C), alpha.new_zeros(W, B, C)
    from_right = weights.T.contiguous()
    steps = zip(betas.unbind(), leaving.unbind(), ends.unbind(1), inner.unbind(1), factors.unbind(1), strict=True)
    arrive = alpha.new_zeros(B, C)
    for k, (beta, leave, end, inside, factor) in enumerate(reversed(list(steps))):
        torch.addcmul(end, arrive, inside, out=beta)  # (B, C)
        if k % RESCALED == RESCALED - 1:
            torch.div(beta * factor, beta.sum(1, keepdim=True).clamp(min=torch.finfo(beta.dtype).tiny), out=leave)
        else:
            torch.mul(beta, factor, out=leave)  # (B, C)
        torch.mm(leave, from_right, out=arrive)  # (B, C)
    betas, leaving = betas.transpose(0, 1), leaving.transpose(0, 1)  # (B, W, C)

    present = lattice.present() & rows[:, None]  # (B, W)
    scale = 1 / (alpha * betas).sum(2)  # (B, W)
    unary = torch.where(present[:, :, None], alpha * betas * scale[:, :, None], 0)  # (B, W, C)
    followed = present[:, 1:, None]
    left = torch.where(followed, alpha[:, :-1] * scale[:, :-1, None], 0)  # (B, W - 1, C)
    right = torch.where(followed, leaving[:, 1:], 0)  # (B, W - 1, C)
    return unary, left.transpose(1, 2) @ right * weights


def _log_marginals(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """As `_scaled_backward`, in log space, of all rows."""
    alpha, beta = log_forward(lattice), log_backward(lattice)  # (B, W, C)
    total = log_partition(lattice, alpha)  # (B,)
    unary = (alpha + beta - total[:, None, None]).exp()  # (B, W, C)
    return unary, log_pairs(lattice, alpha, beta).exp().sum(1)  # (B, C, C)


def _words_tags(lattice: Lattice, tags: Tensor) -> tuple[Tensor, Tensor]:
    """The tags of the words of each row (B, W), 0 where there is no word, and whether all of a row's exist (B,)."""
    tags = tags.gather(1, lattice.columns)  # (B, W)
    exists = (tags >= 0) & (tags < lattice.potentials.size(2))
    present = lattice.present()
    return torch.where(present & exists, tags, 0), (exists | ~present).all(1)


def path_score(lattice: Lattice, tags: Tensor) -> tuple[Tensor, Tensor]:
    """The score of given tags (B,), and whether they all exist (B,)."""
    tags, known = _words_tags(lattice, tags)  # (B, W), (B,)
    present = lattice.present()
    unary = lattice.potentials.gather(2, tags[:, :, None])[:, :, 0]  # (B, W)
    pairs = lattice.scores[tags[:, :-1], tags[:, 1:]]  # (B, W - 1)
    score = torch.where(present, unary, 0).sum(1) + torch.where(present[:, 1:], pairs, 0).sum(1)
    return score, known


def _path_counts(lattice: Lattice, tags: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The tags of `rows` (B,) as counts: of each word (B, W, C), and of transitions (B, C, C)."""
    C, dtype = lattice.potentials.size(2), lattice.potentials.dtype
    tags, _ = _words_tags(lattice, tags)  # (B, W)
    chosen = torch.nn.functional.one_hot(tags, C).to(dtype) * (lattice.present() & rows[:, None])[:, :, None]
    return chosen, chosen[:, :-1].transpose(1, 2) @ chosen[:, 1:]


def _viterbi(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """The best paths (B, W) and their scores (B,); no back-pointers, the way back looks for the maximum again.

    The scores up to each word are brought to a largest of 0, else those of a long text lose the digits that decide.
    """
    potentials, scores, lengths, _ = lattice
    B, W, C = potentials.shape
    into = scores.T.contiguous()  # (C, C) row j: transitions into tag j
    best = potentials.transpose(0, 1).contiguous()  # (W, B, C)
    tops = best.new_empty(W, B, 1)
    steps = best.unbind()
    ways = best.new_empty(B, C, C)
    for k, (here, top) in enumerate(zip(steps, tops.unbind(), strict=True)):
        if k > 0:
            torch.add(steps[k - 1][:, None, :], into, out=ways)  # (B, C to, C from)
            here.add_(ways.amax(2))  # (B, C)
        torch.amax(here, 1, keepdim=True, out=top)  # (B, 1)
        here.sub_(top.clamp(min=torch.finfo(top.dtype).min))  # (B, C) -inf stays what it is
    present = lattice.present()  # (B, W)
    score = torch.where(present, tops[:, :, 0].T, 0).sum(1, dtype=exact_type(best.device))  # (B,)
    ends = (lengths - 1).clamp(min=0)  # (B,)
    tag = best[ends, torch.arange(B, device=ends.device)].argmax(1)  # (B,)
    path = best.new_empty(W, B, dtype=torch.long)
    moves = torch.arange(W, device=ends.device)[:, None] < ends  # (W, B) whether a word has a next one
    path[W - 1] = tag
    for k in range(W - 2, -1, -1):
        tag = torch.where(moves[k], (steps[k] + into[tag]).argmax(1), tag)  # (B,)
        path[k] = tag
    return path.T, score.to(best.dtype)
