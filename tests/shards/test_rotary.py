import math

import torch

from shards.grid import Grid
from shards.rotary import picture_rotation, text_rotation

CPU = torch.device("cpu")


def test_a_pair_turns_by_its_frequency_times_the_position():
    x = torch.tensor([[[1.0, 0.0, 0.0, 2.0]]])  # pairs (0, 2) and (1, 3)
    turned = text_rotation(torch.tensor([3]), head_dim=4, theta=100.0).apply(x)[0, 0]
    fast, slow = 3.0, 3.0 / 10  # 100^(-2j/4)
    expected = [math.cos(fast), -2 * math.sin(slow), math.sin(fast), 2 * math.cos(slow)]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_only_the_distance_between_tokens_counts():
    q, k = torch.randn(1, 2, 16), torch.randn(1, 2, 16)

    def scores(q_at: int, k_at: int) -> torch.Tensor:
        turned_q = text_rotation(torch.tensor([q_at]), 16, 1e4).apply(q)
        turned_k = text_rotation(torch.tensor([k_at]), 16, 1e4).apply(k)
        return (turned_q * turned_k).sum(-1)

    torch.testing.assert_close(scores(9, 4), scores(105, 100), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores(9, 4), scores(9, 5), atol=1e-2)


def test_even_frequencies_turn_by_row_and_odd_ones_by_column():
    grids = [Grid(rows=2, columns=3), Grid(rows=1, columns=2)]
    rotation = picture_rotation(grids, head_dim=8, theta=10.0, device=CPU)
    angles = torch.atan2(rotation.sin, rotation.cos).squeeze(1)
    frequency = [10.0 ** (-2 * j / 8) for j in range(4)]
    # (row, column) of each patch; the second picture starts again at (0, 0).
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 0), (0, 1)]
    expected = [
        [row * frequency[0], row * frequency[2], column * frequency[1], column * frequency[3]]
        for row, column in places
    ]
    torch.testing.assert_close(angles, torch.tensor(expected))


def test_rotation_keeps_the_dtype():
    x = torch.randn(2, 1, 8, dtype=torch.bfloat16)
    assert text_rotation(torch.arange(2), 8, 1e4).apply(x).dtype == torch.bfloat16
