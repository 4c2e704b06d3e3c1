"""Where pytorch-crf accepts an input, the layer answers the same; where pytorch-crf is wrong, it is right."""

import pytest
import torch
import torchcrf
from torch import Tensor

from models.crf import CRF
from models.crf.backend import use_backend
from tests.models.crf.problems import BACKENDS

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def twins(num_tags: int, batch_first: bool, dtype: torch.dtype = torch.float32) -> tuple[torchcrf.CRF, CRF]:
    peer = torchcrf.CRF(num_tags, batch_first).to(dtype)
    ours = CRF(num_tags, batch_first).to(dtype)
    ours.load_state_dict(peer.state_dict())
    return peer, ours


def batch(B: int, W: int, C: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged, padded on the right, rows first."""
    generator = torch.Generator().manual_seed(B * W + C)
    lengths = torch.randint(1, W + 1, (B,), generator=generator)
    lengths[0] = W
    emissions = 2 * torch.randn(B, W, C, dtype=dtype, generator=generator)
    return emissions, torch.randint(0, C, (B, W), generator=generator), torch.arange(W) < lengths[:, None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "token_mean"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (5, 40, 9), (40, 7, 17), (2, 6, 33)])
def test_agrees(
    backend: str, dtype: torch.dtype, batch_first: bool, reduction: str, shape: tuple[int, int, int]
) -> None:
    peer, ours = twins(shape[2], batch_first, dtype)
    emissions, tags, mask = batch(*shape, dtype)
    if not batch_first:
        emissions, tags, mask = (tensor.transpose(0, 1) for tensor in (emissions, tags, mask))
    rtol, atol = TOLERANCE[dtype], 10 * TOLERANCE[dtype]
    results = []
    for crf in (peer, ours):
        given = emissions.clone().requires_grad_()
        with use_backend(backend):
            llh = crf(given, tags, mask, reduction)
            llh.sum().backward()
            # pytorch-crf leaves the gradient of unused transitions away.
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in crf.parameters()]
            results.append((llh.detach(), given.grad, grads, crf.decode(emissions, mask)))
    (expected, expected_grad, expected_grads, expected_paths), (llh, grad, grads, paths) = results
    torch.testing.assert_close(llh, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)
    torch.testing.assert_close(grads, expected_grads, rtol=rtol, atol=atol)
    assert paths == expected_paths


@pytest.mark.filterwarnings("ignore:where received a uint8 condition tensor")
@pytest.mark.parametrize("mask_dtype", [torch.uint8, torch.bool, torch.long, torch.float32])
def test_mask_types_and_no_mask(mask_dtype: torch.dtype) -> None:
    peer, ours = twins(4, True)
    emissions, tags, mask = batch(6, 9, 4)
    torch.testing.assert_close(ours(emissions, tags, mask.to(mask_dtype)), peer(emissions, tags, mask))
    for reduction in ("sum", "token_mean"):
        torch.testing.assert_close(
            ours(emissions, tags, reduction=reduction), peer(emissions, tags, reduction=reduction)
        )
    assert ours.decode(emissions) == peer.decode(emissions)


def test_same_state_and_face() -> None:
    peer, ours = twins(5, False)
    assert isinstance(ours, torchcrf.CRF)
    assert list(ours.state_dict()) == list(peer.state_dict()) == ["start_transitions", "end_transitions", "transitions"]
    assert repr(ours) == repr(peer)
    constrained = CRF(5, legal=torch.ones(7, 7, dtype=torch.bool))
    assert list(constrained.state_dict()) == list(peer.state_dict())
    torch.manual_seed(3)
    peer.reset_parameters()
    torch.manual_seed(3)
    ours.reset_parameters()
    torch.testing.assert_close(ours.state_dict(), peer.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3, 2), torch.zeros(3, 2).long()),
        (torch.zeros(3, 2, 5), torch.zeros(3, 2).long()),
        (torch.zeros(3, 2, 4), torch.zeros(3, 3).long()),
        (torch.zeros(3, 2, 4), torch.zeros(3, 2).long(), torch.ones(2, 2)),
        (torch.zeros(3, 2, 4), torch.zeros(3, 2).long(), None, "average"),
    ],
)
def test_same_errors(arguments: tuple[Tensor, ...]) -> None:
    peer, ours = twins(4, True)
    with pytest.raises(ValueError, match=r".") as expected:
        peer(*arguments)
    with pytest.raises(ValueError, match=r".") as raised:
        ours(*arguments)
    assert str(raised.value) == str(expected.value)
    with pytest.raises(ValueError, match="invalid number of tags: 0"):
        CRF(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_words_do_not_exist(backend: str) -> None:
    """Holes, a first position that is off, -100 where masked: as if the words had been taken out."""
    peer, ours = twins(4, True)
    emissions, tags, _ = batch(1, 8, 4)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 0]]).bool()
    noise = emissions.masked_fill(~mask[:, :, None], torch.nan)
    with use_backend(backend):
        llh = ours(noise, tags.masked_fill(~mask, -100), mask)
        paths = ours.decode(noise, mask)
        expected = peer(emissions[:, mask[0]], tags[:, mask[0]])
        torch.testing.assert_close(llh, expected)
        assert paths == peer.decode(emissions[:, mask[0]])
