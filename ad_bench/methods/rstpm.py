"""RSTPM: beside STFPM's student a second one rebuilds the normal features of another teacher, with attention.

Paper: Yamada and Hotta, Reconstruction Student with Attention for Student-Teacher Pyramid Matching, 2021,
arXiv:2111.15376. The authors published no code, and the paper was not at hand: what is known of it are two
teachers of different architecture, STFPM as the first pair, a second student that rebuilds normal features
through attention on the teacher's, and that six maps make the result. Ours is the rest:
  1. The second student's layers (parts/pairs.py), its optimiser, and the second teacher.
  2. All six maps are multiplied, so that no level and no pair has to be weighed.
  3. As in STFPM a share of the normal images is held out and chooses the epoch.
"""

from __future__ import annotations

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.maps import upsample, worst_pixel
from ad_bench.parts.matching import multiplied
from ad_bench.parts.pairs import Pairs


class RSTPM(Method):
    """Two frozen teachers; a student of each learns."""

    def __init__(self, pairs: Pairs):
        super().__init__()
        self.pairs = pairs

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train both students; held-out normal images choose the epoch."""
        self.pairs.learn(train, run)

    def predict(self, inputs: Inputs) -> Prediction:
        """The product of the six maps; an image scores as its worst pixel."""
        maps = upsample(multiplied(self.pairs(inputs.images)), inputs.size)
        return Prediction(worst_pixel(maps), maps)
