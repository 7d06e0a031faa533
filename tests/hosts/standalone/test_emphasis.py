import pytest
import torch
from shaking import shaken

from embedding_estimate.errors import SettingsError
from embedding_estimate.hosts.standalone.emphasis import by_name

Z = torch.tensor([[[1.0, 3.0], [2.0, 2.0]], [[4.0, 0.0], [1.0, 3.0]]])  # (2, 2, 2), mean 2
M = torch.tensor([[1.0, 2.0], [1.0, 1.0]])  # (2, 2)


def test_original_restores_the_mean_of_the_batch() -> None:
    """m z = [[1 3] [4 4]] and [[4 0] [1 3]]: mean 20 / 8 = 2.5, so everything is scaled by 2 / 2.5 = 0.8."""
    expected = torch.tensor([[[0.8, 2.4], [3.2, 3.2]], [[3.2, 0.0], [0.8, 2.4]]])
    assert torch.allclose(by_name("Original")(Z, M), expected)


def test_original_of_one_row_differs_from_the_same_row_in_a_batch() -> None:
    """Alone, the first text has mean 2 before and 3 after: scaled by 2 / 3."""
    assert torch.allclose(by_name("Original")(Z[:1], M[:1]), torch.tensor([[[2 / 3, 2], [8 / 3, 8 / 3]]]))


def test_no_norm_only_multiplies() -> None:
    assert torch.equal(by_name("No norm")(Z, M), torch.tensor([[[1.0, 3.0], [4.0, 4.0]], [[4.0, 0.0], [1.0, 3.0]]]))


@pytest.mark.parametrize("name", ["Ignore", "None"])
def test_the_others_change_nothing(name: str) -> None:
    assert torch.equal(by_name(name)(Z, M), Z)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(SettingsError, match=r"emphasis='original'.*Original"):
        by_name("original")


def test_original_without_weights_changes_no_bit() -> None:
    """z * (m / m), as the WebUI has it, is z; z * m / m is not, in a last digit here and there."""
    z = torch.randn(1, 77, 16, generator=torch.Generator().manual_seed(shaken(0)))
    assert torch.equal(by_name("Original")(z, torch.ones(1, 77)), z)
    assert not torch.equal(z * z.mean() / z.mean(), z)
