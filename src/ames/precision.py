"""Number formats: whether a device computes in one, or only imitates it.

A processor without instructions for bf16 or fp16 takes 10 to 200 times as long in them as in fp32, with the
same scores at best. No name tells which processors have them: it is measured.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple

import torch

# What takes more than four times fp32's time is imitated. A processor with instructions for the conversion
# alone takes up to twice that time, one without any at least ten times: noise cannot confuse them.
SLOWER = 4.0
_SHAPE = (512, 128, 128)  # of the products: some hundred tokens of AMES through a layer
_PATIENCE = 0.1  # seconds of measuring after which no further round begins
_BESIDE = 10  # products in fp32 for each in the format, which may take as long as all of them
# int8 is taken where its products are faster than those of fp32 by this: their input has to be rounded first.
INT8_FASTER = 2.0
AUTOCAST = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}  # None: fp32 throughout
_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8"}

log = logging.getLogger(__name__)


class Rates(NamedTuple):
    """Operations a second of matrix products: in the format that is asked for, and in fp32."""

    wanted: float
    fp32: float

    @property
    def slow(self) -> bool:
        return self.wanted * SLOWER < self.fp32


def has_tf32(device: str | torch.device) -> bool:
    """Whether the device can round the inputs of fp32 products to TF32: GPUs since Ampere; no CPU."""
    if torch.device(device).type != "cuda":
        return False
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)


def usable(dtype: torch.dtype, devices: Iterable[str | torch.device], *, asked: str) -> bool:
    """Whether all devices compute in ``dtype`` at a sensible speed; if not, a log line says why, once.

    asked: the setting, as a person wrote it. The caller then computes in fp32, and records that.
    """
    for device in devices:
        why = _why_not(dtype, torch.device(device))
        if why is not None:
            _say(asked, why)
            return False
    return True


def _why_not(dtype: torch.dtype, device: torch.device) -> str | None:
    name = _NAMES.get(dtype)
    if name is None:
        return None
    if dtype == torch.int8 and not int8_is_exact():
        return "this processor's products of 8-bit integers overflow"
    if device.type == "cpu":
        rates = measured(dtype)
        if rates.wanted < INT8_FASTER * rates.fp32 if dtype == torch.int8 else rates.slow:
            return (
                f"this processor reaches {rates.wanted / 1e9:.3g} billion operations per second and core in "
                f"{name}, {rates.fp32 / 1e9:.3g} in fp32"
            )
    elif device.type == "cuda" and dtype == torch.bfloat16 and torch.cuda.is_available():
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                return f"{torch.cuda.get_device_name(device)} has no bf16 and would imitate it"
    return None


@functools.cache
def _say(asked: str, why: str) -> None:
    log.warning("%s: %s; fp32 is taken instead", asked, why)


@functools.cache
def int8_is_exact() -> bool:
    """Whether sums of products of 8-bit integers are right: processors without VNNI add pairs in 16 bits."""
    a, b = torch.full((64, 512), 127, dtype=torch.int8), torch.full((512, 64), -127, dtype=torch.int8)
    return bool((torch._int_mm(a, b) == -127 * 127 * 512).all())


@functools.cache
def measured(dtype: torch.dtype) -> Rates:
    """Measure the rates of one thread of the CPU, in a quarter of a second at most.

    Several threads would wait for each other at the end of a product, a hundred times as long as it takes,
    where other processes want the cores.
    """
    with ExitStack() as restored:
        restored.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        restored.enter_context(torch.inference_mode())
        restored.enter_context(torch.autocast("cpu", enabled=False))
        wanted, fp32 = (
            (torch.ones(_SHAPE[:2], dtype=kind), torch.ones(_SHAPE[1:], dtype=kind))
            for kind in (dtype, torch.float32)
        )
        _seconds(*wanted), _seconds(*fp32)  # the first calls set the library up
        in_wanted: list[float] = []
        in_fp32: list[float] = []
        begun = time.perf_counter()
        # In turns, so that a busy spell slows both down; the least time counts.
        while not in_wanted or time.perf_counter() - begun < _PATIENCE:
            in_wanted.append(_seconds(*wanted))
            in_fp32 += [_seconds(*fp32) for _ in range(_BESIDE)]
    operations = 2 * _SHAPE[0] * _SHAPE[1] * _SHAPE[2]
    return Rates(operations / min(in_wanted), operations / min(in_fp32))


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    begun = time.perf_counter()
    if a.dtype == torch.int8:
        torch._int_mm(a, b)
    else:
        a @ b
    return time.perf_counter() - begun
