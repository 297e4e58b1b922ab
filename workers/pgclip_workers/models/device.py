"""What devices differ in: which one, in which precision, how it runs out of memory, how it dies."""

import torch

from pgclip_workers.models.encoder import DeviceLost


def best_device() -> str:
    """What PGCLIP_DEVICE=auto means here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def best_dtype(precision: str, device: str, bfloat16: bool) -> torch.dtype:
    """The setting's dtype; `auto` is the fastest in which the device multiplies matrices itself.

    `bfloat16`: whether that is exact enough for the model.
    """
    if precision != "auto":
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device != "cpu":
        return torch.float16
    fast = torch.cpu.get_capabilities()
    fast_bfloat16 = fast.get("avx512_bf16") or fast.get("amx_bf16")
    return torch.bfloat16 if bfloat16 and fast_bfloat16 else torch.float32


def memory(device: str) -> dict[str, int]:
    """Bytes of a CUDA device: in use now, at most so far, kept by torch, and all there are."""
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "peak": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "total": torch.cuda.get_device_properties(device).total_memory,
    }


def out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may do. Libraries below torch have their own words for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in (
            "DefaultCPUAllocator: can't allocate memory",
            "CUDA error: out of memory",  # of pinned memory of the host
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
            "MPS backend out of memory",
            "could not create a memory object",  # oneDNN
        )
    )


def raise_if_lost(error: Exception) -> None:
    """Raises DeviceLost if after this error the device is of no use to this process.

    For errors that are not out of memory, of which CUDA speaks in the same words.
    """
    lost = isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError)
        and any(
            words in str(error)
            for words in (
                "CUDA error",
                "device-side assert",
                "CUBLAS_STATUS_EXECUTION_FAILED",
                "CUBLAS_STATUS_INTERNAL_ERROR",
                "CUBLAS_STATUS_NOT_INITIALIZED",
                "CUDNN_STATUS_EXECUTION_FAILED",
                "CUDNN_STATUS_INTERNAL_ERROR",
            )
        )
    )
    if lost:
        raise DeviceLost(str(error)) from error
