"""One multivariate Gaussian for each position of a feature map (PaDiM, arXiv:2011.08785, Sec. III-B)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts.bank import Bank

CELLS = 1 << 24  # of the covariances that are worked on at a time: 64 MB


class PositionGaussian(nn.Module):
    """Mean and covariance of the features at each of P positions; `eps` is added to the diagonal.

    Keeps the mean (P, d) and the lower Cholesky factor (P, d, d) of the covariance.
    """

    def __init__(self, eps: float):
        if not eps > 0:
            raise UsageError(f"eps keeps the covariance invertible and is above 0; got {eps}")
        super().__init__()
        self.eps = eps
        self.mean, self.factor = Bank(), Bank()

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Estimate from batches of features (B, P, d), each seen once: sample covariance (N - 1) + eps I.

        Batches are merged as in Chan et al. 1979, so no digits are lost to the size of the mean.
        Of one single image the covariance is eps I.
        """
        count = 0
        mean = scatter = torch.empty(0)
        for batch in batches:
            rows = batch.transpose(0, 1)  # (P, B, d)
            positions, new, dim = rows.shape
            batch_mean = rows.mean(1)
            if count == 0:
                mean = torch.zeros_like(batch_mean)
                scatter = rows.new_zeros(positions, dim, dim)
            step = batch_mean - mean
            # The step between the old mean and the batch's is one more row: one product does it all.
            between = step[:, None] * (count * new / (count + new)) ** 0.5
            rows = torch.cat([rows - batch_mean[:, None], between], 1)
            for span in _spans(scatter):
                scatter[span].baddbmm_(rows[span].transpose(1, 2), rows[span])
            count += new
            mean = mean + step * (new / count)
        if count == 0:
            raise ValueError("no training images: nothing to estimate a Gaussian from")
        self.mean.points, self.factor.points = mean, self._factorise(scatter, max(count - 1, 1))

    def _factorise(self, scatter: Tensor, divisor: int) -> Tensor:
        """Lower Cholesky factors of scatter / divisor + eps I, in the memory of `scatter`."""
        for span in _spans(scatter):
            covariance = scatter[span].div_(divisor)
            covariance.diagonal(dim1=1, dim2=2).add_(self.eps)
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if failed.any():
                raise AdbenchError(
                    f"the covariance of {int(failed.count_nonzero())} positions is not positive definite "
                    f"with eps={self.eps}: features that are not finite, or much larger than 1? Raise eps"
                )
            scatter[span] = factor
        return scatter

    def mahalanobis(self, features: Tensor) -> Tensor:
        """(B, P, d) -> Mahalanobis distances (B, P), not squared."""
        if len(self.mean) == 0:
            raise ValueError(
                "the Gaussian is empty: fit the method, or load a state, before asking for distances"
            )
        offset = (features - self.mean.points).permute(1, 2, 0)  # (P, d, B)
        distance = torch.empty(offset.shape[0], offset.shape[2], dtype=offset.dtype, device=offset.device)
        for span in _spans(self.factor.points):
            solved = torch.linalg.solve_triangular(self.factor.points[span], offset[span], upper=False)
            distance[span] = solved.square().sum(1).sqrt()
        return distance.T


def _spans(matrices: Tensor) -> list[slice]:
    """Stretches of the first dimension of (P, d, d) that hold about CELLS numbers each."""
    step = max(1, CELLS // matrices[0].numel())
    return [slice(start, start + step) for start in range(0, len(matrices), step)]
