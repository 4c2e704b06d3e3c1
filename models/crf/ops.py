"""The log-partition and the log-likelihood as differentiable operators: their gradients are the marginals.

There are two doors to the same computation. `torch.autograd.Function` is the eager one. A custom operator, which
torch.compile can keep whole inside its graph, costs 70 microseconds more a step on a CPU, which is as much as all the
arithmetic of a small batch; so it serves only where a compiler looks on.
"""

from typing import Any

import torch
from torch import Tensor

from models.crf.backend import Chains, State, backend_for


def chain_value(chains: Chains, tags: Tensor | None = None, summed: bool = False) -> Tensor:
    """The log-partition of each row, or the log-likelihood of `tags` (B, W): (B,), differentiable once.

    `summed` gives the sum over rows, (), and one node less in the graph.
    """
    if torch.compiler.is_compiling():
        value: Tensor = torch.ops.bert_crf.value(*chains, tags)[0]
        return value.sum() if summed else value
    return _Value.apply(*chains, tags, summed)


def marginals(chains: Chains) -> Tensor:
    """P(tag) of each word: (B, W, C), 0 where masked. Not differentiable."""
    with torch.no_grad():
        value, state = _forward(chains, None)
        return _backward(torch.ones_like(value), chains, None, state)[0]


def _forward(chains: Chains, tags: Tensor | None, gradients: bool = False) -> tuple[Tensor, State]:
    _, _, C = chains.emissions.shape
    return backend_for(chains.emissions.device, C).forward(chains, tags, gradients)


def _backward(grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, _, C = chains.emissions.shape
    return backend_for(chains.emissions.device, C).backward(grad, chains, tags, state)


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *scores, tags, summed = inputs
        chains = Chains(*scores)
        value, state = _forward(chains, tags, gradients=summed and any(ctx.needs_input_grad))
        ctx.state, ctx.rows = state, value.shape
        if state.gradients is None:
            ctx.save_for_backward(*chains[:4], tags)
            ctx.constants = chains[4:]
        return value.sum() if summed else value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("a CRF is differentiable once: its gradient has none, so create_graph cannot be had")
        if ctx.state.gradients is not None:
            return *torch._foreach_mul(ctx.state.gradients, grad), None, None, None, None, None
        *scores, tags = ctx.saved_tensors
        gradients = _backward(grad.expand(ctx.rows), Chains(*scores, *ctx.constants), tags, ctx.state)
        return *gradients, None, None, None, None, None


@torch.library.custom_op("bert_crf::value", mutates_args=())
def _value(
    emissions: Tensor,
    start: Tensor,
    end: Tensor,
    transitions: Tensor,
    mask: Tensor | None,
    legal: Tensor | None,
    allowed: Tensor | None,
    tags: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    value, state = _forward(Chains(emissions, start, end, transitions, mask, legal, allowed), tags)
    return value, state.alpha, state.mode


@_value.register_fake
def _(emissions: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    B, W, C = emissions.shape
    width = backend_for(emissions.device, C).state_width(C)
    return emissions.new_empty(B), emissions.new_empty(B, W, width), emissions.new_empty(B, dtype=torch.uint8)


@torch.library.custom_op("bert_crf::value_backward", mutates_args=())
def _value_backward(
    grad: Tensor,
    emissions: Tensor,
    start: Tensor,
    end: Tensor,
    transitions: Tensor,
    mask: Tensor | None,
    legal: Tensor | None,
    allowed: Tensor | None,
    tags: Tensor | None,
    alpha: Tensor,
    mode: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chains = Chains(emissions, start, end, transitions, mask, legal, allowed)
    return _backward(grad, chains, tags, State(alpha, mode))


@_value_backward.register_fake
def _(
    grad: Tensor, emissions: Tensor, start: Tensor, end: Tensor, transitions: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(emissions), torch.empty_like(start), torch.empty_like(end), torch.empty_like(transitions)


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.bert_crf.value_backward(grad, *ctx.saved_tensors)
    return *gradients, None, None, None, None


_value.register_autograd(_differentiate, setup_context=_keep)
