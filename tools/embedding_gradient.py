"""The gradient of an embedding table, kept between steps, so that a step touches only the rows of its batch."""

import torch
from torch import Tensor, nn


class EmbeddingGradient:
    """Keeps the dense gradient of a table, with the same values as without it.

    Without it, each backward pass allocates a table of zeros, of which a batch uses about 1 %, and each step frees it.
    Here autograd adds sparse gradients to the same table, and after a step the rows that were used are set to zero.

    Args:
        embedding: its weight learns. It is set to ``sparse``.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self._weight = embedding.weight
        self._table = torch.zeros_like(self._weight, requires_grad=False)
        self._rows: list[Tensor] = []
        self._version = self._table._version
        self._is_changed = False
        embedding.sparse = True
        self._weight.register_hook(self._summed)
        self._weight.register_post_accumulate_grad_hook(self._accumulated)
        self._weight.grad = self._table

    def _summed(self, gradient: Tensor) -> Tensor:
        """Add up the gradients of each row in the order of the batch, as a dense backward pass does."""
        if not gradient.is_sparse:  # the weight is also used elsewhere
            self._is_changed = True
            return gradient
        rows, places = torch.unique(gradient._indices()[0], return_inverse=True)
        sums = torch.zeros(len(rows), gradient.shape[1], dtype=gradient.dtype)
        sums.index_add_(0, places, gradient._values())
        self._rows.append(rows)
        shape = gradient.shape
        return torch.sparse_coo_tensor(rows[None], sums, shape, is_coalesced=True, check_invariants=False)

    def _accumulated(self, weight: Tensor) -> None:
        assert weight.grad is not None
        if weight.grad.is_sparse:  # someone took the table, as adversarial training does
            weight.grad = weight.grad.to_dense()
        self._version = self._table._version

    def check(self) -> None:
        """Notice if a callback has changed other rows; to be called after the backward passes of a step."""
        self._is_changed |= self._table._version != self._version

    def clear(self) -> None:
        """Set the gradient to zero."""
        if self._is_changed:
            self._table.zero_()
        elif self._rows:
            self._table.index_fill_(0, torch.cat(self._rows), 0.0)
        self._rows.clear()
        self._is_changed = False
        self._version = self._table._version
        self._weight.grad = self._table
