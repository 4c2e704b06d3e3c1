"""What a compiler is told of the custom operators, against what a backend does."""

import itertools

import torch

from models.crf.backend import use_backend


def check_operators(backend: str, device: torch.device) -> None:
    """The layout of results, that they share no memory, gradients; for batches as they come and transposed."""
    B, W, C = 2, 4, 3
    legal = torch.rand(C + 2, C + 2, device=device) < 0.8
    legal[:, 0] = legal[0] = True
    mask = torch.ones(B, W, dtype=torch.bool, device=device)
    tags = torch.zeros(B, W, dtype=torch.long, device=device)
    layouts = torch.randn(B, W, C, device=device), torch.randn(W, B, C, device=device).transpose(0, 1)
    parameters = [torch.randn(shape, device=device) for shape in ((C,), (C,), (C, C))]
    options = (mask, None, None, tags), (None, legal, None, None)
    with use_backend(backend):
        for emissions, given in itertools.product(layouts, options):
            scores = [score.detach().requires_grad_() for score in (emissions, *parameters)]
            torch.library.opcheck(torch.ops.bert_crf.value, (*scores, *given))
            with torch.no_grad():
                value, *state = torch.ops.bert_crf.value(*scores, *given)
                arguments = torch.ones_like(value), emissions, *parameters, *given, *state
            torch.library.opcheck(torch.ops.bert_crf.value_backward, arguments)
