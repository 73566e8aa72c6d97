import pytest
import torch

from simvp_climate.networks.padding import pad, pad_for_export
from simvp_climate.networks.simvp_v2 import PADDING_MODES


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("rows", "columns"), [((1, 1), (1, 1)), ((9, 9), (9, 9)), ((0, 0), (0, 3)), ((2, 0), (0, 0)), ((5, 13), (12, 7))]
)
@pytest.mark.parametrize("size", [(8, 16), (5, 7), (4, 4)])
def test_it_is_what_the_network_sees_in_training(padding_mode, rows, columns, size):
    fields = torch.arange(2.0 * 3 * size[0] * size[1]).reshape(2, 3, *size)
    expected = pad(fields, padding_mode, rows, columns)
    torch.testing.assert_close(pad_for_export(fields, padding_mode, rows, columns), expected, rtol=0, atol=0)
