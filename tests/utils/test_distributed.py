"""What processes tell one another, and how they share work."""

import pytest
import torch

from ddpm import UserError
from ddpm.utils.distributed import SINGLE_PROCESS, Processes


def test_one_alone_needs_nobody(tmp_path):
    class One:
        process_index, num_processes, is_main_process = 0, 1, True
        device = torch.device("cpu")

    processes = Processes(One())
    assert processes.broadcast([1.5, 2], yes=False) == ([1.5, 2], False)
    assert processes.broadcast([], yes=True) == ([], True)
    assert processes.part(7) == slice(0, 7)
    assert torch.equal(processes.mean(torch.ones(2)), torch.ones(2))


def test_parts_are_even():
    class Second:
        process_index, num_processes, is_main_process = 1, 4, False

    assert Processes(Second()).part(12) == slice(3, 6)
    with pytest.raises(UserError, match="cannot be shared by 4"):
        Processes(Second()).part(10)
    with pytest.raises(UserError, match="cannot be cut into 2 parts by each of 4"):
        Processes(Second()).part(12, 2)
    assert Processes(Second()).part(16, 2) == slice(4, 8)


def test_work_is_done_in_order():
    parts = [torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5])]
    done = [made for (made,) in SINGLE_PROCESS.map_in_order(parts, lambda part: (2 * part,))]
    assert torch.cat(done).tolist() == [2, 4, 6, 8, 10]


def test_an_error_of_another_kind_stays_what_it_is():
    with pytest.raises(RuntimeError, match="out of memory"), SINGLE_PROCESS.peer_errors():
        raise RuntimeError("out of memory")
