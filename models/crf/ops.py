"""The log-partition and the log-likelihood as differentiable operators: their gradients are the marginals.

There are two doors to the same computation. `torch.autograd.Function` is the eager one. A custom operator, which
torch.compile can keep whole inside its graph, costs 70 microseconds more a step on a CPU, which is as much as all the
arithmetic of a small batch; so it serves only where a compiler looks on.
"""

from typing import Any

import torch
from torch import Tensor

from models.crf.backend import Chains, Forward, backend_for


def chain_value(chains: Chains, tags: Tensor | None = None) -> Tensor:
    """The log-partition of each row, or the log-likelihood of `tags` (B, W): (B,), differentiable once."""
    if torch.compiler.is_compiling():
        value: Tensor = torch.ops.bert_crf.value(*chains, tags)[0]
        return value
    return _Value.apply(*chains, tags)  # type: ignore[no-any-return, no-untyped-call]


def marginals(chains: Chains) -> Tensor:
    """P(tag) of each word: (B, W, C), 0 where masked. Not differentiable."""
    with torch.no_grad():
        forward = _forward(chains, None)
        return _backward(torch.ones_like(forward.value), chains, None, forward)[0]


def _forward(chains: Chains, tags: Tensor | None) -> Forward:
    _, _, C = chains.emissions.shape
    return backend_for(chains.emissions.device, C).forward(chains, tags)


def _backward(
    grad: Tensor, chains: Chains, tags: Tensor | None, forward: Forward
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, _, C = chains.emissions.shape
    return backend_for(chains.emissions.device, C).backward(grad, chains, tags, forward)


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        forward = _forward(Chains(*inputs[:-1]), inputs[-1])
        ctx.save_for_backward(*inputs, *forward)
        return forward.value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("a CRF is differentiable once: its gradient has none, so create_graph cannot be had")
        *scores, tags, value, alpha, mode = ctx.saved_tensors
        gradients = _backward(grad, Chains(*scores), tags, Forward(value, alpha, mode))
        return *gradients, None, None, None, None


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
    return _forward(Chains(emissions, start, end, transitions, mask, legal, allowed), tags)


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
    value: Tensor,
    alpha: Tensor,
    mode: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chains = Chains(emissions, start, end, transitions, mask, legal, allowed)
    return _backward(grad, chains, tags, Forward(value, alpha, mode))


@_value_backward.register_fake
def _(
    grad: Tensor, emissions: Tensor, start: Tensor, end: Tensor, transitions: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(emissions), torch.empty_like(start), torch.empty_like(end), torch.empty_like(transitions)


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.bert_crf.value_backward(grad, *ctx.saved_tensors)
    return *gradients, None, None, None, None


_value.register_autograd(_differentiate, setup_context=_keep)
