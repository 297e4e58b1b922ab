"""Out of memory: halved, remembered, grown again; what a dead device is told by."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest
import torch

from pgclip_workers.models.capacity import Capacity, Turns
from pgclip_workers.models.encoder import DeviceLost, TooLarge


def device_with_room(room: int, tried: list[int]) -> Callable[[Sequence[int]], list[int]]:
    """A planted forward pass that runs out of memory beyond `room` inputs."""

    def forward(part: Sequence[int]) -> list[int]:
        tried.append(len(part))
        if len(part) > room:
            raise torch.OutOfMemoryError("planted")
        return list(part)

    return forward


def test_what_does_not_fit_is_halved_and_remembered() -> None:
    capacity, tried = Capacity(64, Turns()), list[int]()
    forward = device_with_room(20, tried)
    outputs = capacity.run(forward, range(64))
    assert [n for part in outputs for n in part] == list(range(64))
    assert tried == [64, 32, 16, 16, 16, 16]
    tried.clear()
    capacity.run(forward, range(40))
    assert tried == [16, 16, 8]


def test_it_grows_again() -> None:
    capacity, tried = Capacity(64, Turns()), list[int]()
    capacity.run(device_with_room(20, tried), range(64))
    roomy = device_with_room(64, tried)
    for _ in range(40):
        capacity.run(roomy, range(64))
    assert capacity.now == 64
    tried.clear()
    capacity.run(roomy, range(64))
    assert tried == [64]


def test_small_batches_say_nothing_about_large_ones() -> None:
    capacity, tried = Capacity(64, Turns()), list[int]()
    capacity.run(device_with_room(20, tried), range(64))
    for _ in range(200):
        capacity.run(device_with_room(20, tried), range(3))
    assert capacity.now == 16


def test_one_that_does_not_fit_alone() -> None:
    with pytest.raises(TooLarge):
        Capacity(64, Turns()).run(device_with_room(0, []), range(5))


def test_memory_that_another_pass_holds_fails_no_input() -> None:
    turns, held, tried = Turns(), threading.Event(), threading.Event()

    def holding(part: Sequence[int]) -> int:
        held.set()
        tried.wait(10)
        time.sleep(0.05)
        held.clear()
        return len(part)

    def hindered(part: Sequence[int]) -> int:
        if held.is_set():
            tried.set()
            raise torch.OutOfMemoryError("planted")
        return len(part)

    other = threading.Thread(target=lambda: Capacity(8, turns).run(holding, range(8)))
    other.start()
    held.wait(10)
    assert Capacity(1, turns).run(hindered, range(3)) == [1, 1, 1]
    other.join()
    assert tried.is_set()


def test_one_at_a_time_where_the_device_takes_no_more() -> None:
    turns, running, most = Turns(together=False), [0], [0]

    def forward(part: Sequence[int]) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.01)
        running[0] -= 1

    threads = [
        threading.Thread(target=lambda: Capacity(1, turns).run(forward, range(5))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_other_words_for_out_of_memory(error: Exception) -> None:
    failures = iter([error])

    def forward(part: Sequence[int]) -> int:
        for failure in failures:
            raise failure
        return len(part)

    assert Capacity(8, Turns()).run(forward, range(8)) == [4, 4]


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_dead_device_is_told_from_an_input_that_fails(error: Exception) -> None:
    def forward(part: Sequence[int]) -> None:
        raise error

    with pytest.raises(DeviceLost):
        Capacity(8, Turns()).run(forward, range(8))


def test_an_input_that_fails_is_its_own_fault() -> None:
    def forward(part: Sequence[int]) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Capacity(8, Turns()).run(forward, range(8))
