"""What a device is asked for."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from ddpm.utils.device import keep_freed_memory

def faults(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(n)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2**26)  # 256 MiB
without = faults(2**25)
keep_freed_memory()
faults(2**26)
print(without, faults(2**25))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to keep memory")
def test_freed_memory_is_kept_for_the_next_step():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    without, kept = map(int, done.stdout.split())
    if without < 100:
        pytest.skip("this C library keeps memory by itself")
    assert kept < without / 10
