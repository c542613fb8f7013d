"""What a person looks at while a run trains."""

from dataclasses import replace

import pytest

from ddpm.config import DataInfo
from ddpm.training.preview import MAX_SAMPLES, grid_size

INFO = DataInfo("set", 100, 3, 8, 8, (), "")


@pytest.mark.parametrize("classes", [0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 13, 100])
def test_grids_have_full_rows_and_columns_of_one_class(classes):
    n, columns = grid_size(replace(INFO, classes=tuple(map(str, range(classes)))))
    assert n % columns == 0
    assert 24 < n <= MAX_SAMPLES
    assert 5 <= columns <= 12
    if 1 < classes <= 12:
        assert columns % classes == 0
