"""What is freed between steps stays with the process while it trains, and goes back afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from lasem.training import heap
from lasem.training.heap import kept_heap

GLIBC = sys.platform == "linux" and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
CPU = torch.device("cpu")

PAGES = """
import json, resource, torch
from contextlib import nullcontext
from lasem.training.heap import kept_heap

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def rounds():  # 96 MiB and 3 x 4 MiB a round
    for _ in range(4):
        large = torch.ones(24 << 20)
        small = [torch.ones(1 << 20) for _ in range(3)]
        del large, small

told = []
for context in (nullcontext(), kept_heap(torch.device("cpu"))):
    with context:
        rounds()
        before = pages()
        rounds()
        told.append(pages() - before)
told.append(resident())
with kept_heap(torch.device("cpu")):
    rounds()
told.append(resident())
print(json.dumps(told))
"""


@pytest.mark.skipif(not GLIBC, reason="only glibc hands memory back at once")
def test_pages_are_new_outside_only_and_given_back_at_the_end() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, env=environment, check=True)
    outside, inside, before_kept, after_kept = json.loads(done.stdout)
    large = (96 << 20) // os.sysconf("SC_PAGE_SIZE")  # more than what glibc ever keeps by itself
    assert outside >= 4 * large
    assert inside < large
    assert after_kept - before_kept < large // 2


def test_it_may_be_entered_again_and_by_threads_and_ends_with_errors() -> None:
    def train() -> None:
        with kept_heap(CPU), kept_heap(torch.device("meta")):
            assert torch.ones(1 << 20).sum() == 1 << 20

    def fail() -> None:
        with kept_heap(CPU):
            threads = [threading.Thread(target=train) for _ in range(4)]
            for thread in threads:
                thread.start()
            train()
            for thread in threads:
                thread.join()
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert heap._num_inside == 0
