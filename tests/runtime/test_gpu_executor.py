"""The executor: tables and memory as the kernel finds them, time-outs in words. Launches need a GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mpk_ir.codegen import abi
from mpk_ir.core.errors import DeviceError, KernelTimeoutError
from mpk_ir.core.target import H200
from mpk_ir.runtime.binding import device_tasks
from mpk_ir.runtime.driver import Device, DeviceMemory, find_device
from mpk_ir.runtime.executor import GpuExecutor, GpuOptions
from mpk_ir.runtime.nvrtc import NvrtcOptions, compile_source
from mpk_ir.runtime.timeout import timeout_error
from tests.runtime.toy import COLUMNS, PARAMETERS, ROWS, expected, toy_program
from tests.runtime.toy_kernel import DEFINES, SOURCE

WEIGHTS = {name: torch.from_numpy(values) for name, values in PARAMETERS.items()}
START = np.random.default_rng(0).integers(-8, 8, (ROWS, COLUMNS)).astype(np.float32)
PROGRAM = toy_program(3, H200, SOURCE)
OPTIONS = GpuOptions(nvrtc=NvrtcOptions(defines=DEFINES))


@pytest.fixture
def device() -> Device:
    found = find_device()
    if found is None:
        pytest.skip("no NVIDIA GPU")
    return found


@pytest.fixture
def executor(device: Device) -> GpuExecutor:
    executor = GpuExecutor(PROGRAM, WEIGHTS, device, OPTIONS)
    executor.write_state("x", START)
    return executor


def test_the_table_holds_addresses_in_declared_order() -> None:
    bases = {"x": 1000, "bias": 20000, "doubled": 30000, "shifted": 40000, "out": 50000}
    table = device_tasks(PROGRAM, bases)
    assert table.dtype.itemsize == abi.TASK.dtype.itemsize
    for row, task in zip(PROGRAM.tasks, table, strict=True):
        grid, i, before = PROGRAM.grids[row["grid"]].name, int(row["index"][0]), (int(row["index"][0]) - 1) % ROWS
        pitch = COLUMNS * 4
        places = {
            "double": [1000 + i * pitch, 0, 30000 + i * pitch],
            "shift": [30000 + i * pitch, 20000 + i * pitch, 40000 + i * pitch],
            "store": [40000 + before * pitch, 0, 50000 + i * pitch],
            "keep": [40000 + before * pitch, 0, 1000 + i * pitch],
        }
        assert task["operand"][:3].tolist() == places[grid]
        assert task["row_stride"][:3].tolist() == [COLUMNS, COLUMNS if grid == "shift" else 0, COLUMNS]
        assert (task["body"], task["num_waits"]) == (row["grid"], row["num_waits"])


def test_the_toy_kernel_compiles() -> None:
    compile_source(SOURCE, PROGRAM.headers, "sm_90a", OPTIONS.nvrtc)


def test_without_a_gpu_the_error_says_what_to_do() -> None:
    if find_device() is not None:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="no usable GPU") as caught:
        GpuExecutor(PROGRAM, WEIGHTS)
    assert "--target sim" in str(caught.value)


def test_a_device_of_another_architecture_is_refused() -> None:
    with pytest.raises(DeviceError, match="Blackwell is sm_100, the program is for sm_90a"):
        Device(0, "Blackwell", 148, (10, 0), 1 << 30).require("sm_90a")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (abi.ErrorCode.EVENT_TIMEOUT, "gave up waiting for event 'shifted' (1): count 3, target 8"),
        (abi.ErrorCode.LOAD_TIMEOUT, "consumers waited too long for the loader warp"),
        (abi.ErrorCode.RING_TIMEOUT, "the loader warp waited too long for a free stage"),
    ],
)
def test_a_timeout_is_told_in_the_plans_names(code: abi.ErrorCode, words: str) -> None:
    task = int(np.flatnonzero(PROGRAM.tasks["grid"] == 2)[1])
    error = np.array([(code, 2, task, 1, 1, 3, 8)], abi.ERROR.dtype)[0]
    text = str(timeout_error(PROGRAM, error))
    index = int(PROGRAM.tasks[task]["index"][0])
    assert f"task {task} of grid 'store' at ({index},) on SM 2 in step 1" in text
    assert words in text


@pytest.mark.gpu
def test_steps_of_several_launches_give_the_simulators_result(executor: GpuExecutor) -> None:
    for steps in (1, 2, 4):
        executor.run(steps)
    assert np.array_equal(executor.read_state("x"), expected(START, 7))
    assert np.array_equal(executor.read_state("out"), expected(START, 7))
    assert executor.compiled.resources["toy"].spill_bytes == 0


@pytest.mark.gpu
def test_poison_reaches_scratch_and_outputs_but_not_state(executor: GpuExecutor) -> None:
    executor.poison()
    assert np.isnan(executor.read_state("out")).all()
    executor.run(1)
    assert np.array_equal(executor.read_state("out"), expected(START, 1))


@pytest.mark.gpu
def test_a_stalled_kernel_becomes_an_error_and_the_executor_recovers(device: Device) -> None:
    tasks = PROGRAM.tasks.copy()
    tasks["wait_count"][tasks["grid"] == 1, 0] = ROWS + 1
    options = replace(OPTIONS, spin_limit_ns=20_000_000)
    stalled = GpuExecutor(replace(PROGRAM, tasks=tasks), WEIGHTS, device, options)
    for _ in range(2):
        stalled.run(1)
        with pytest.raises(KernelTimeoutError, match=r"event 'doubled' \(0\): count 4, target 5"):
            stalled.synchronize()


CRASH = """
from dataclasses import replace
from tests.runtime.test_gpu_executor import OPTIONS, PROGRAM, ROWS, WEIGHTS, GpuExecutor, GpuOptions, NvrtcOptions
tasks = PROGRAM.tasks.copy()
tasks["wait_count"][tasks["grid"] == 1, 0] = ROWS + 1
crashing = GpuOptions(spin_limit_ns=1_000_000, nvrtc=NvrtcOptions(defines=(*OPTIONS.nvrtc.defines, "CRASH")))
executor = GpuExecutor(replace(PROGRAM, tasks=tasks), WEIGHTS, None, crashing)
executor.run(1)
executor.synchronize()
"""


@pytest.mark.gpu
def test_a_crashed_kernels_last_words_are_heard(device: Device) -> None:
    # In a process of its own: a crash takes the context with it.
    finished = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    assert finished.returncode == 1, f"{device.name} did not crash"
    assert "KernelTimeoutError: task" in finished.stderr
    assert "event 'doubled' (0): count 4, target 5" in finished.stderr


@pytest.mark.gpu
def test_more_blocks_than_fit_are_refused(device: Device) -> None:
    launch = replace(PROGRAM.launch, num_blocks=100_000)
    with pytest.raises(DeviceError, match="needs 100000 blocks at once"):
        GpuExecutor(replace(PROGRAM, launch=launch), WEIGHTS, device, OPTIONS)


@pytest.mark.gpu
def test_the_device_is_told_by_name(device: Device) -> None:
    assert device.name.isprintable()
    assert device.name == device.name.strip()
    assert device.name.startswith("NVIDIA")


@pytest.mark.gpu
def test_time_is_measured_on_the_device(executor: GpuExecutor) -> None:
    assert 0 < executor.time_steps(10) < 1000
    assert np.array_equal(executor.read_state("x"), expected(START, 10))


@pytest.mark.gpu
def test_counters_start_over_before_they_overflow(executor: GpuExecutor) -> None:
    executor.run(1)
    executor._first_step = (1 << 31) // (2 * ROWS) - 1
    executor.run(2)
    assert np.array_equal(executor.read_state("x"), expected(START, 3))


@pytest.mark.gpu
def test_memory_is_shared_with_torch(executor: GpuExecutor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch is built without CUDA")
    executor.tensor("x").add_(1)
    torch.cuda.synchronize()
    assert np.array_equal(executor.read_state("x"), START + 1)


@pytest.mark.gpu
def test_memory_checks_its_size(device: Device) -> None:
    device.make_current()
    memory = DeviceMemory(16)
    with pytest.raises(DeviceError, match="device memory of 16 bytes, values of 8 bytes"):
        memory.write(np.zeros(2, np.float32))
    memory.write(np.arange(4, dtype=np.float32))
    assert memory.read((2, 2), np.dtype(np.float32)).tolist() == [[0, 1], [2, 3]]
