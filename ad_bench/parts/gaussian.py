"""One multivariate Gaussian for each position of a feature map (PaDiM, arXiv:2011.08785, Sec. III-B).

Or for each group of rows, where positions are none of the image's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.exact import exact_products

CELLS = 1 << 20  # of the covariances that are worked on at a time: 4 MB, which a CPU's caches hold
CELLS_GPU = 1 << 26  # 256 MB: a GPU wants few and large products
BLOCK = 25  # rows that are eliminated at a time; divides the 100 and 550 dimensions of the paper


class PositionGaussian(nn.Module):
    """Mean and covariance C of the features at each of P positions; `eps` is added to the diagonal.

    The covariance of N images divides by N - correction. Kept are the mean (P, d) and the whitening W
    (P, d, d): lower triangular, the inverse of C's Cholesky factor, so that |W (x - mean)| is the Mahalanobis
    distance. No second table of that size is ever held.
    """

    def __init__(self, eps: float, correction: int = 1):
        if not eps > 0:
            raise UsageError(f"eps keeps the covariance invertible and is above 0; got {eps}")
        super().__init__()
        self.eps, self.correction = eps, correction
        self.mean, self.whitening = Bank(), Bank()

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Estimate from batches of features (B, P, d), each seen once: sample covariance + eps I.

        Batches are merged as in Chan et al. 1979, so no digits are lost to the size of the mean.
        Of one single image the covariance is eps I.
        """
        count = 0
        mean = scatter = torch.empty(0)
        for batch in batches:
            new, positions, dim = batch.shape
            if count == 0:
                mean, scatter = batch.new_zeros(positions, dim), batch.new_zeros(positions, dim, dim)
            with exact_products(scatter.device):
                for span in _spans(scatter):
                    rows = batch[:, span].transpose(0, 1)  # (p, B, d)
                    batch_mean = rows.mean(1)
                    step = batch_mean - mean[span]
                    # The step between the old mean and the batch's is one more row: one product does it all.
                    between = step * (count * new / (count + new)) ** 0.5
                    rows = torch.cat([rows - batch_mean[:, None], between[:, None]], 1)
                    scatter[span].baddbmm_(rows.mT, rows)
                    mean[span] += step * (new / (count + new))
            count += new
        if count == 0:
            raise ValueError("no training images: nothing to estimate a Gaussian from")
        divisor = max(count - self.correction, 1)
        self.mean.points, self.whitening.points = mean, self._whitening(scatter, divisor)

    def fit_maps(self, batches: Iterable[Tensor]) -> None:
        """`fit` for feature maps (B, d, h, w): every cell is a position."""
        self.fit(maps.flatten(2).transpose(1, 2) for maps in batches)

    @torch.no_grad()
    def fit_groups(self, rows: Tensor, owner: Tensor, groups: int) -> None:
        """Estimate a Gaussian for each group, of the rows (N, d) that it owns: `owner` (N,), below `groups`.

        Of one single row, or of none, the covariance is eps I.
        """
        mean = rows.new_zeros(groups, rows.shape[1])
        scatter = rows.new_zeros(groups, rows.shape[1], rows.shape[1])
        with exact_products(rows.device):
            for group, members in _by_group(owner, groups):
                mean[group] = rows[members].mean(0)
                offset = rows[members] - mean[group]
                torch.mm(offset.T, offset, out=scatter[group])
                scatter[group] /= max(len(members) - self.correction, 1)
        self.mean.points, self.whitening.points = mean, self._whitening(scatter, 1)

    def _whitening(self, scatter: Tensor, divisor: int) -> Tensor:
        """W for the covariances scatter / divisor + eps I, in the memory of `scatter`."""
        failed = []
        with exact_products(scatter.device):
            for span in _spans(scatter):
                covariance = scatter[span].div_(divisor)
                covariance.diagonal(dim1=1, dim2=2).add_(self.eps)
                failed.append(whiten_(covariance))
        if count := int(torch.cat(failed).count_nonzero()):
            raise AdbenchError(
                f"the covariance of {count} positions is not positive definite with eps={self.eps}: "
                f"features that are not finite, or much larger than 1? Raise eps"
            )
        return scatter

    def mahalanobis(self, features: Tensor) -> Tensor:
        """(B, P, d) -> Mahalanobis distances (B, P), not squared."""
        if len(self.mean) == 0:
            raise ValueError(
                "the Gaussian is empty: fit the method, or load a state, before asking for distances"
            )
        mean, whitening = self.mean.points, self.whitening.points
        distance = features.new_empty(len(mean), len(features))
        with exact_products(features.device):
            for span in _spans(whitening):
                offset = (features[:, span] - mean[span]).permute(1, 2, 0)  # (p, d, B)
                distance[span] = whitening[span].bmm(offset).square_().sum(1).sqrt_()
        return distance.T

    def to_groups(self, rows: Tensor, groups: Tensor) -> Tensor:
        """(N, d), (N, k) -> Mahalanobis distances (N, k) of each row to the Gaussians of its k groups."""
        distance = rows.new_empty(groups.numel())
        with exact_products(rows.device):
            for group, pairs in _by_group(groups.flatten(), len(self.mean)):
                offset = rows[pairs // groups.shape[1]] - self.mean.points[group]
                distance[pairs] = (offset @ self.whitening.points[group].T).square_().sum(1).sqrt_()
        return distance.view(groups.shape)

    def distance_maps(self, maps: Tensor) -> Tensor:
        """(B, d, h, w) -> Mahalanobis distances (B, h, w), not squared."""
        return self.mahalanobis(maps.flatten(2).transpose(1, 2)).reshape(len(maps), *maps.shape[2:])


def whiten_(covariance: Tensor) -> Tensor:
    """Turn C (P, d, d) into W = L^-1 in place, where L L^T = C; returns (P,), true where there is no L.

    Elimination takes [C | I] to [L^T | L^-1], a block of rows at a time: of both halves only d columns are
    ever in use, C's to the right of the block and I's up to it, and share the memory of C. All but the
    blocks themselves are batched products, where LAPACK's two steps work on one matrix after the other.
    """
    dim = covariance.shape[1]
    failed = torch.zeros(len(covariance), dtype=torch.bool, device=covariance.device)
    for start in range(0, dim, BLOCK):
        end = min(start + BLOCK, dim)
        factor, error = torch.linalg.cholesky_ex(covariance[:, start:end, start:end])
        failed |= error > 0
        identity = torch.eye(end - start, dtype=factor.dtype, device=factor.device)
        covariance[:, start:end, start:end] = identity
        covariance[:, end:, start:end] = 0
        rows = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False).bmm(
            covariance[:, start:end]
        )
        covariance[:, end:].baddbmm_(rows[:, :, end:].mT, rows, alpha=-1)
        rows[:, :, end:] = 0  # L^T has served: what is left is W's, whose upper part is zero
        covariance[:, start:end] = rows
    return failed


def _by_group(owner: Tensor, groups: int) -> Iterator[tuple[int, Tensor]]:
    """Each group that owns something, and where in `owner` (N,) it is named."""
    order = owner.sort(stable=True).indices
    for group, members in enumerate(order.split(torch.bincount(owner, minlength=groups).tolist())):
        if len(members):
            yield group, members


def _spans(matrices: Tensor) -> list[slice]:
    """Stretches of the first dimension of (P, d, d) that hold about CELLS numbers each."""
    cells = CELLS if matrices.device.type == "cpu" else CELLS_GPU
    step = max(1, cells // matrices[0].numel())
    return [slice(start, start + step) for start in range(0, len(matrices), step)]
