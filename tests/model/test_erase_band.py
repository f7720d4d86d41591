"""The bands that feature erasing zeroes."""

import pytest
import torch

from model.layers.erasing import erase_band, erase_bands
from tests.reference.slow_pcb import slow_band
from utils.errors import ConfigError


def zeroed_rows(maps: torch.Tensor) -> list[list[int]]:
    """The rows of each sample that are 0 throughout, of maps whose other numbers are not 0."""
    whole = (maps == 0).all(dim=3).all(dim=1)  # [B, h]
    assert torch.equal(whole, (maps == 0).any(dim=3).any(dim=1))  # a row is erased whole or not at all
    return [row.nonzero().flatten().tolist() for row in whole]


@pytest.mark.parametrize(("rows", "ratio"), [(8, 0.3), (7, 0.5), (4, 0.25), (6, 1.0), (24, 0.1)])
def test_a_band_of_each_sample_is_zero_and_the_rest_is_as_it_was(rows, ratio):
    maps = torch.rand(64, 3, rows, 2) + 1
    erased = erase_band(maps, ratio)
    for sample, zeroed in enumerate(zeroed_rows(erased)):
        assert zeroed == slow_band(rows, ratio, zeroed[0])
        kept = [row for row in range(rows) if row not in zeroed]
        assert torch.equal(erased[sample, :, kept], maps[sample, :, kept])


def test_every_first_row_is_drawn_equally_often_the_last_one_too():
    torch.manual_seed(0)
    draws, places = 7000, 7  # bands of 2 in 8 rows begin at 0 to 6
    firsts = torch.tensor([rows[0] for rows in zeroed_rows(erase_band(torch.ones(draws, 1, 8, 1), 0.3))])
    counts = firsts.bincount(minlength=places)
    assert len(counts) == places
    within = 5 * (draws * (1 / places) * (1 - 1 / places)) ** 0.5  # five standard errors
    assert (counts - draws / places).abs().max().item() < within


def test_each_sample_and_each_stripe_draws_its_own_band():
    torch.manual_seed(0)
    assert len({tuple(rows) for rows in zeroed_rows(erase_band(torch.ones(50, 1, 8, 1), 0.3))}) > 3
    erased = erase_bands(torch.ones(50, 1, 2, 8, 1), 0.3)
    upper, lower = (zeroed_rows(erased[:, :, stripe]) for stripe in (0, 1))
    assert upper != lower and {len(rows) for rows in (*upper, *lower)} == {2}


@pytest.mark.parametrize("ratio", [0.0, 0.2])
def test_a_share_of_no_row_leaves_the_maps(ratio):
    maps = torch.randn(2, 3, 4, 2)
    assert torch.equal(erase_band(maps, ratio), maps)


def test_erased_rows_have_no_gradient():
    maps = (torch.rand(5, 2, 6, 3) + 1).requires_grad_()
    erased = erase_band(maps, 0.5)
    erased.sum().backward()
    assert torch.equal(maps.grad, (erased != 0).float())


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(ConfigError, match="expected a share of the rows"):
        erase_band(torch.ones(1, 1, 4, 1), ratio)
