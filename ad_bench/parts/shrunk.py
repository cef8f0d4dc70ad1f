"""One Gaussian of rows whose covariance is shrunk, so that few rows of many dimensions suffice.

Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate
Analysis 88, 2004: the sample covariance is mixed with a multiple of the identity, in the share that is
expected to err least. Equal to scikit-learn's `ledoit_wolf`, on any device and without a copy of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.exact import exact_products

ROWS = 4096  # that are held in double precision at a time; no result depends on it beyond rounding


class ShrunkGaussian(nn.Module):
    """Mean and shrunk covariance C of rows (N, d); `eps` is added to C's diagonal.

    Keeps the mean (d,) and a whitening W (d, d), the inverse of C's Cholesky factor, so that |W (x - mean)|
    is the Mahalanobis distance. Given a basis (k, d) of orthonormal rows, W is (k, d) and only these
    directions count.
    """

    def __init__(self, eps: float):
        if not eps > 0:
            raise UsageError(f"eps keeps the covariance invertible and is above 0; got {eps}")
        super().__init__()
        self.eps, self.mean, self.whitening = eps, Bank(), Bank()

    @torch.no_grad()
    def fit(self, rows: Tensor, basis: Tensor | None = None) -> None:
        """Estimate from (N, d); of one single row the covariance is eps I."""
        mean, covariance = ledoit_wolf(rows, basis)
        covariance.diagonal().add_(self.eps)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            raise AdbenchError(
                f"the covariance of {len(rows)} rows of {rows.shape[1]} is not positive definite with "
                f"eps={self.eps}: features that are not finite? Else raise eps"
            )
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        if basis is not None:
            whitening = whitening @ basis.to(whitening)
        self.mean.points, self.whitening.points = mean.to(rows), whitening.to(rows)

    def squared(self, rows: Tensor) -> Tensor:
        """(B, d) -> squared Mahalanobis distances (B,); twice the negative log density up to a constant."""
        if len(self.mean) == 0:
            raise ValueError(
                "the Gaussian is empty: fit the method, or load a state, before asking for distances"
            )
        with exact_products(rows.device):
            return ((rows - self.mean.points) @ self.whitening.points.T).square().sum(1)

    def mahalanobis(self, rows: Tensor) -> Tensor:
        """(B, d) -> Mahalanobis distances (B,), not squared."""
        return self.squared(rows).sqrt()


def ledoit_wolf(rows: Tensor, basis: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(N, d) -> mean (d,) and shrunk covariance (d, d), in double precision; a single row's is all zeros.

    The covariance divides by N, as in the paper. With a basis (k, d) it is that of the rows' k coordinates.
    """
    count = len(rows)
    if count == 0:
        raise ValueError("no training images: nothing to estimate a Gaussian from")
    axes = None if basis is None else basis.double().T
    dim = rows.shape[1] if axes is None else axes.shape[1]
    mean = torch.stack([part.double().sum(0) for part in rows.split(ROWS)]).sum(0) / count
    covariance, fourth = mean.new_zeros(dim, dim), mean.new_zeros(())
    for part in rows.split(ROWS):
        centred = part.double() - mean
        centred = centred if axes is None else centred @ axes
        covariance.addmm_(centred.T, centred)
        fourth += centred.square().sum(1).square().sum()
    covariance /= count
    mu, total = covariance.diagonal().mean(), covariance.square().sum()
    spread = total - dim * mu.square()  # squared distance of the covariance from mu I
    error = (fourth / count - total) / count  # and how much of it chance alone would make
    share = (error / spread).clamp(0, 1) if spread > 0 else torch.zeros_like(mu)
    covariance *= 1 - share
    covariance.diagonal().add_(share * mu)
    return mean, covariance
