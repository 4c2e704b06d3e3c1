"""What the layer computes, as operators; the log-partition and the log-likelihood are differentiable.

There are two doors to the same computation. `torch.autograd.Function` is the eager one. A custom operator, which
torch.compile can keep whole inside its graph, costs 70 microseconds more a step on a CPU, which is as much as all the
arithmetic of a small batch; so it serves only where a compiler looks on.
"""

from typing import Any

import torch
from torch import Tensor

from . import differentiable, posterior
from .backend import backend_for
from .chains import Backend, Chains, State
from .lattice import exact_type, lattice_of


def chain_value(chains: Chains, tags: Tensor | None = None) -> Tensor:
    """The log-partition of each row, or the log-likelihood of `tags` (B, W): (B,), differentiable."""
    chains, tags = savable(chains, tags)
    if _in_graph(chains):
        value: Tensor = torch.ops.bert_crf.value(*chains, tags)[0]
        return value
    return _Value.apply(*chains[:4], chains, tags)


def savable(chains: Chains, tags: Tensor | None) -> tuple[Chains, Tensor | None]:
    """Without tensors that were made in inference mode, which autograd would refuse to save."""
    if not torch.is_grad_enabled():
        return chains, tags
    if torch.compiler.is_compiling():  # which cannot tell: what needs no gradient is copied, and is mostly small
        *given, tags = (
            tensor if tensor is None or tensor.requires_grad else torch.ops.bert_crf.copy(tensor)
            for tensor in (*chains, tags)
        )
    else:
        *given, tags = (
            tensor.clone() if tensor is not None and tensor.is_inference() else tensor for tensor in (*chains, tags)
        )
    return Chains._make(given), tags


def marginals(chains: Chains) -> Tensor:
    """P(tag) of each word: (B, W, C), 0 where masked. Not differentiable."""
    with torch.no_grad():
        if _in_graph(chains):
            value, alpha, mode = torch.ops.bert_crf.value(*chains, None)
            gradients = torch.ops.bert_crf.value_backward(torch.ones_like(value), *chains, None, alpha, mode)
            unary: Tensor = gradients[0]
            return unary
        backend = _backend(chains)
        if backend.with_gradients:
            return backend.with_gradients(chains, None)[1].emissions.abs_()  # of the negative
        value, state = backend.forward(chains, None)
        return backend.backward(torch.ones_like(value), chains, None, state).emissions


def entropy(chains: Chains) -> Tensor:
    """The entropy of the distribution over paths: (B,). Not differentiable."""
    with torch.no_grad():
        found: Tensor = torch.ops.bert_crf.entropy(*chains)
        return found


def best_paths(chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
    """`Backend.decode`."""
    with torch.no_grad():
        if _in_graph(chains):
            paths: tuple[Tensor, Tensor] = torch.ops.bert_crf.decode(*chains, padding)
            return paths
        return _backend(chains).decode(chains, padding)


def _in_graph(chains: Chains) -> bool:
    """Whether the tensors are recorded, or stand for others: then an operator has to be called, not a function."""
    return torch.compiler.is_compiling() or type(chains.emissions) not in (Tensor, torch.nn.Parameter)


def _backend(chains: Chains) -> Backend:
    return backend_for(chains.emissions.device, chains.start.size(0))


def _gradients_in_graph(chains: Chains, tags: Tensor | None, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the values as a graph, so that they can be differentiated again."""
    value = differentiable.value(chains, tags)  # (B,)
    needed = [scores for scores in chains[:4] if scores.requires_grad]
    found = iter(torch.autograd.grad(value, needed, grad.to(value.dtype).expand_as(value), create_graph=True))
    return tuple(next(found) if scores.requires_grad else None for scores in chains[:4])


class _Value(torch.autograd.Function):
    """Autograd looks at four arguments, the differentiable ones: each that it looks at costs a microsecond."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        chains, tags = inputs[4:]
        ctx.backend, ctx.gradients, ctx.state = _backend(chains), None, None
        ctx.save_for_backward(*chains, tags)
        if ctx.backend.with_gradients and any(ctx.needs_input_grad):
            value, ctx.gradients = ctx.backend.with_gradients(chains, tags)
        else:
            value, ctx.state = ctx.backend.forward(chains, tags)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *scores, tags = ctx.saved_tensors
        chains = Chains(*scores)
        if torch.is_grad_enabled():  # create_graph
            return *_gradients_in_graph(chains, tags, grad), None, None
        gradients, ctx.gradients = ctx.gradients, None  # autograd copies gradients that have another reference
        if gradients is not None:
            return *gradients.weighted(grad), None, None
        return *ctx.backend.backward(grad, chains, tags, ctx.state), None, None  # or a retained graph's second time


_SCORES = "Tensor emissions, Tensor start, Tensor end, Tensor transitions"
_CHAINS = f"{_SCORES}, Tensor? mask, Tensor? legal, Tensor? allowed"  # the fields of `Chains`


@torch.library.custom_op("bert_crf::copy", mutates_args=())
def _copy(given: Tensor) -> Tensor:
    return given.clone()


@_copy.register_fake
def _(given: Tensor) -> Tensor:
    return torch.empty_like(given)


@torch.library.custom_op(
    "bert_crf::value", mutates_args=(), schema=f"({_CHAINS}, Tensor? tags) -> (Tensor, Tensor, Tensor)"
)
def _value(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    *given, tags = inputs
    chains = Chains._make(given)
    value, state = _backend(chains).forward(chains, tags)
    return value, state.alpha.contiguous(), state.mode


@_value.register_fake
def _(emissions: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    B = emissions.size(0)
    return emissions.new_empty(B), emissions.new_empty(emissions.shape), emissions.new_empty(B, dtype=torch.uint8)


@torch.library.custom_op(
    "bert_crf::value_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_CHAINS}, Tensor? tags, Tensor alpha, Tensor mode) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _value_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *given, tags, alpha, mode = inputs
    chains = Chains._make(given)
    return _backend(chains).backward(grad, chains, tags, State(alpha, mode))


@_value_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, inputs[:4]))


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.bert_crf.value_backward(grad, *ctx.saved_tensors)
    return *gradients, None, None, None, None


_value.register_autograd(_differentiate, setup_context=_keep)


@torch.library.custom_op("bert_crf::decode", mutates_args=(), schema=f"({_CHAINS}, int padding) -> (Tensor, Tensor)")
def _decode(*inputs: Any) -> tuple[Tensor, Tensor]:
    *given, padding = inputs
    chains = Chains._make(given)
    return _backend(chains).decode(chains, padding)


@_decode.register_fake
def _(emissions: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return emissions.new_empty(emissions.shape[:2], dtype=torch.int64), emissions.new_empty(emissions.size(0))


@torch.library.custom_op("bert_crf::entropy", mutates_args=(), schema=f"({_CHAINS}) -> Tensor")
def _entropy(*given: Any) -> Tensor:
    chains = Chains._make(given)
    return posterior.entropy(lattice_of(chains, exact_type(chains.emissions.device))).to(chains.emissions.dtype)


@_entropy.register_fake
def _(emissions: Tensor, *_: Any) -> Tensor:
    return emissions.new_empty(emissions.size(0))
