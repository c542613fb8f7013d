"""What a person looks at while a run trains."""

from dataclasses import replace

import numpy as np
import pytest

from ddpm.checkpoint.checkpoint import build_diffusion, build_net
from ddpm.config import DataInfo
from ddpm.training.preview import MAX_SAMPLES, grid_size, sample_grid

INFO = DataInfo("set", 100, 3, 8, 8, (), "")


@pytest.mark.parametrize("classes", [0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 13, 100])
def test_grids_have_full_rows_and_columns_of_one_class(classes):
    n, columns = grid_size(replace(INFO, classes=tuple(map(str, range(classes)))))
    assert n % columns == 0
    assert 24 < n <= MAX_SAMPLES
    assert 5 <= columns <= 12
    if 1 < classes <= 12:
        assert columns % classes == 0


def test_a_preview_that_is_made_in_parts_is_the_same(tiny):
    """No more at once than are learned at once: where training fits, previews do."""
    info = replace(INFO, channels=1, height=16, width=16, classes=("a", "b"))
    net, diffusion = build_net(tiny, info), build_diffusion(tiny)
    sizes = []
    net.register_forward_pre_hook(lambda net, args: sizes.append(len(args[0])))
    few = replace(tiny, train=replace(tiny.train, batch=8, accumulate=2))
    whole = replace(tiny, train=replace(tiny.train, batch=64))
    one, two = (np.asarray(sample_grid(net, diffusion, c, info), int) for c in (whole, few))
    assert abs(one - two).max() <= 1
    assert max(sizes[tiny.sample.steps :]) == 8  # four, with and without their class
