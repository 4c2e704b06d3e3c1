"""Eight rows side by side give what each gives by itself: groups, windows, lanes that leave, shapes of all kinds."""

import pytest
import torch
from torch import Tensor

from models.crf import CRF
from models.crf.backend import use_backend
from models.crf.chains import LOG_SPACE, NO_GRADIENT, SCALED, Chains
from models.crf.cpu import CppBackend

# Less than a group, a group and a row, more than a window of 64 rows, more groups than chunks; many tags, many words.
SHAPES = [(1, 1, 1), (5, 7, 2), (9, 12, 9), (70, 33, 5), (300, 6, 16), (33, 20, 32), (3, 7, 79), (2, 300, 11)]


def batch(B: int, W: int, C: int, dtype: torch.dtype) -> tuple[CRF, Tensor, Tensor, Tensor, Tensor]:
    """A layer with forbidden transitions, emissions, tags, a mask with holes and empty rows, allowed tags."""
    torch.manual_seed(B * W * C)
    crf = CRF(C, batch_first=True, legal=torch.rand(C + 2, C + 2) < 0.9).to(dtype)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    tags, mask = torch.randint(0, C, (B, W)), torch.rand(B, W) < torch.rand(B, 1)
    mask[0] = True
    for row in range(B):  # a legal path for each
        path = [C, *tags[row][mask[row]].tolist(), C + 1]
        assert crf.legal is not None
        crf.legal[path[:-1], path[1:]] = True
    allowed = (torch.rand(B, W, C) < 0.8).scatter(2, tags[:, :, None], True)
    return crf, 3 * torch.randn(B, W, C, dtype=dtype), tags, mask, allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_plain_torch(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    crf, emissions, tags, mask, allowed = batch(*shape, dtype)
    weights = torch.randn(shape[0], dtype=dtype)
    results = []
    for backend in ("cpp", "torch"):
        given = emissions.clone().requires_grad_()
        inputs = [given, *crf.parameters()]
        with use_backend(backend):
            summed = crf(given, tags, mask)
            partition = crf.log_partition(given, mask, allowed)
            results.append(
                [
                    *(summed, partition, crf.marginals(given, mask)),
                    *torch.autograd.grad(summed, inputs),
                    *torch.autograd.grad(weights @ crf(given, tags, mask, "none"), inputs),
                    *torch.autograd.grad(weights @ partition, inputs),
                    *crf.best_paths(given, mask),
                    *crf.best_paths(given, mask, allowed=allowed),
                ]
            )
    for abreast, plain in zip(*results, strict=True):
        torch.testing.assert_close(abreast, plain, rtol=1e-5, atol=1e-5)


def test_rows_beside_one_that_needs_log_space_stay_scaled() -> None:
    """A lane that leaves a group takes nothing of its neighbours with it, and leaves nothing behind."""
    crf = CRF(5, batch_first=True, legal=None)
    crf.transitions.data[0, 1] = -1e4
    plain = torch.randn(8, 10, 5)
    wide = plain.clone()
    wide[3, 4, 0] = wide[3, 5, 1] = 6e3
    wide[6] = -torch.inf
    wide[6, :, 2] = 0.0
    parameters = (crf.start_transitions.data, crf.end_transitions.data, crf.transitions.data)
    tags = torch.full((8, 10), 2)
    backend, grad = CppBackend(), torch.ones(8)
    found = {}
    for name, emissions in (("plain", plain), ("wide", wide)):
        chains = Chains(emissions, *parameters, None, None, None)
        values, state = backend.forward(chains, None)
        likelihoods, _ = backend.forward(chains, tags)
        found[name] = (values, likelihoods, backend.backward(grad, chains, None, state).emissions, state.mode)
    assert found["wide"][3].tolist() == [SCALED] * 3 + [LOG_SPACE] + [SCALED] * 4
    others = [0, 1, 2, 4, 5, 7]
    for a, b in zip(found["plain"], found["wide"], strict=True):
        assert torch.equal(a[others], b[others])
    assert found["wide"][1][6].abs() < 1e-5  # its one path
    assert found["wide"][2].isfinite().all()


def test_an_impossible_row_is_refused_without_touching_others() -> None:
    crf = CRF(3, batch_first=True)
    emissions = torch.randn(20, 4, 3)
    emissions[11, 2] = -torch.inf
    with pytest.raises(ValueError, match="no legal path of finite score in row 11 of the batch"):
        crf.log_partition(emissions)
    with pytest.raises(ValueError, match="no legal path of finite score in row 11 of the batch"):
        crf.decode(emissions)
    tags = torch.zeros(20, 4, dtype=torch.long)
    tags[17, 3] = 3
    with pytest.raises(ValueError, match="a tag that does not exist in row 17 of the batch"):
        crf(emissions.nan_to_num(neginf=0.0), tags)


def test_illegal_tags_have_no_gradient() -> None:
    legal = torch.ones(5, 5, dtype=torch.bool)
    legal[0, 1] = False
    crf = CRF(3, batch_first=True, legal=legal)
    emissions = torch.randn(3, 2, 3, requires_grad=True)
    tags = torch.tensor([[0, 0], [0, 1], [1, 0]])
    chains = crf._chains(emissions, None)
    values, state = CppBackend().forward(chains, tags)
    assert values.isneginf().tolist() == [False, True, False]
    assert state.mode.tolist() == [SCALED, NO_GRADIENT, SCALED]
    crf(emissions, tags, reduction="none")[[0, 2]].sum().backward()
    assert emissions.grad is not None
    assert emissions.grad.any(2).any(1).tolist() == [True, False, True]
