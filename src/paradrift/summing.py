"""Sums over rows, one after the other: the same bits for a sample whatever its batch is.

A sum over the leading axis of a tensor of shape (rows, samples, ...) is vectorised over the samples, and on some
processors columns that do not fill a vector are added in another order than those that do: a sample's sum would depend
on how many batch mates it has, by one rounding, and so would what is decided or combined from it.
"""

from torch import Tensor


def over_rows(values: Tensor) -> Tensor:
    r"""The sum over the first axis in the order of its rows, :math:`((v_0 + v_1) + v_2) + \dots`.

    Args:
        values: Shape (rows, ...), at least one row.

    Returns:
        Shape (...).

    Example:
        >>> import torch
        >>> over_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([4., 6.])
    """
    return values.cumsum(0)[-1]
