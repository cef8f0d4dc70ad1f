from __future__ import annotations

import pytest
import torch
from torch import nn

from ad_bench.errors import UsageError
from ad_bench.parts.transformer import Attention, FeedForward, LearnedPlaces, neighbourhood


def test_neighbourhood_by_hand() -> None:
    near = neighbourhood((3, 4), 3)
    assert near[0].view(3, 4).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False] * 4,
    ]
    assert near[6].view(3, 4).int().tolist() == [[0, 1, 1, 1]] * 3
    assert torch.equal(near, near.T)
    assert near.diagonal().all()


def test_a_neighbourhood_that_hides_all_is_refused() -> None:
    with pytest.raises(UsageError, match="whole grid"):
        neighbourhood((4, 4), 7)
    with pytest.raises(UsageError, match="odd"):
        neighbourhood((14, 14), 4)


def test_what_is_hidden_has_no_influence() -> None:
    torch.manual_seed(0)
    layer, hidden = Attention(8, 2, 0.1).eval(), neighbourhood((4, 5), 3)
    tokens, source, places = torch.rand(1, 20, 8), torch.rand(1, 20, 8), torch.rand(20, 8)
    before, changed = layer(tokens, source, places, hidden), source.clone()
    changed[:, hidden[7]] += 5
    after = layer(tokens, changed, places, hidden)
    torch.testing.assert_close(after[:, 7], before[:, 7])
    assert not torch.allclose(after[:, 19], before[:, 19])


def test_without_places_it_is_torchs_own_encoder_layer() -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    attention, forward = Attention(8, 2, 0.0), FeedForward(8, 16, 0.0)
    attention.attention.load_state_dict(theirs.self_attn.state_dict())
    attention.norm.load_state_dict(theirs.norm1.state_dict())
    forward.layers[0].load_state_dict(theirs.linear1.state_dict())
    forward.layers[3].load_state_dict(theirs.linear2.state_dict())
    forward.norm.load_state_dict(theirs.norm2.state_dict())
    tokens = torch.rand(2, 6, 8)
    torch.testing.assert_close(forward(attention(tokens, tokens, torch.zeros(6, 8))), theirs(tokens))


def test_places_tell_the_column_first() -> None:
    places = LearnedPlaces((2, 3), 4)
    assert places().shape == (6, 4)
    torch.testing.assert_close(places()[5], torch.cat([places.columns.weight[2], places.rows.weight[1]]))
    with pytest.raises(UsageError, match="even"):
        LearnedPlaces((2, 3), 5)
