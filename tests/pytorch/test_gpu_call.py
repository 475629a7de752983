"""A call of a compiled graph on the GPU, with the driver in host memory: what it launches, copies and never loses."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from mpk_ir.core.errors import DeviceError, KernelTimeoutError, UsageError
from mpk_ir.core.target import H200
from mpk_ir.pytorch import REPORTS, synchronize
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.gpu_call import GpuCall, _captured
from mpk_ir.pytorch.region import Region

from .fake_gpu import DEVICE, FakeGpu, install
from .test_random_programs import imported_from

Tensor = torch.Tensor
LAUNCH = "cuLaunchCooperativeKernel"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    torch._dynamo.reset()
    REPORTS.clear()
    with torch.no_grad():
        yield install(monkeypatch)
    torch._dynamo.reset()
    _captured.clear()
    gc.collect()  # regions free their memory while the fake is there


def function(x: Tensor, y: Tensor) -> Tensor:
    return torch.tanh(x) * 2 + y


def _succeed(*_: object) -> tuple[int]:
    return (0,)


def region_of(traced: Callable[..., Tensor], *inputs: Tensor) -> tuple[Region, GpuCall]:
    region = Region(imported_from(traced, inputs), H200, DEVICE, {}.__getitem__)
    assert region._gpu_call is not None
    return region, region._gpu_call


def test_a_call_with_the_same_tensors_is_one_launch_and_nothing_else(gpu: FakeGpu) -> None:
    x, y = torch.randn(8, 64), torch.randn(8, 64)
    compiled = torch.compile(function, backend=mpk)
    for _ in range(4):
        torch.testing.assert_close(compiled(x, y), function(x, y))
    x.add_(1)
    seen: list[dict[str, int]] = []
    for _ in range(40):  # results come to lie where others lay before
        gpu.calls.clear()
        compiled(x, y)
        seen.append(dict(gpu.calls))
    assert seen[20:].count({LAUNCH: 1}) >= 16
    torch.testing.assert_close(compiled(x, y), function(x, y))


def test_tensors_are_read_and_written_where_they_are(gpu: FakeGpu) -> None:
    x, y = torch.randn(8, 64), torch.randn(8, 64)
    region, call = region_of(function, x, y)
    kept = [region((x, y))[0] for _ in range(20)]  # results at ever new addresses
    for one in kept:
        torch.testing.assert_close(one, function(x, y))
    assert len({one.data_ptr() for one in kept}) == 20
    bindings = call._bindings.values()
    assert {len(b.copies_in) for b in bindings} == {0, 2}
    assert all(b.copies_out for b in bindings), "a result's address was never met before: it is copied"
    assert len(bindings) == 2, "the inputs at no known address, and at theirs"


@pytest.mark.parametrize("case", ["transposed", "misaligned", "expanded", "integers", "scalar"])
def test_what_the_plan_lays_out_otherwise_is_copied(gpu: FakeGpu, case: str) -> None:
    base = torch.randn(64 * 8 + 1)
    x = {
        "transposed": base[1:].view(64, 8).t(),
        "misaligned": base[1:].view(8, 64),
        "expanded": base[:64].expand(8, 64),
        "integers": torch.arange(512).view(8, 64),
        "scalar": base[4],
    }[case]
    region, call = region_of(lambda x: x * 2 + 1, x)
    for _ in range(3):
        torch.testing.assert_close(region((x,))[0], x * 2 + 1)
    copied = {binding.copies_in for binding in call._bindings.values()}
    assert all(copied) == (case != "scalar")


def test_tables_and_addresses_stay_few(gpu: FakeGpu) -> None:
    x = torch.randn(4, 16)
    region, call = region_of(lambda x: x + 1, x)
    call._most = 3
    pool = [torch.randn(4, 16) for _ in range(12)]
    for _ in range(3):
        for one in pool:
            torch.testing.assert_close(region((one,))[0], one + 1)
    assert len(call._bindings) <= 3
    assert max(map(len, call._met)) <= 12


def test_another_stream_waits_for_the_one_before(gpu: FakeGpu) -> None:
    x = torch.randn(4, 16)
    region, _ = region_of(lambda x: x + 1, x)
    region((x,))
    gpu.calls.clear()
    region((x,))
    assert gpu.calls["cuStreamWaitEvent"] == 0
    gpu.stream = 9
    region((x,))
    assert gpu.calls["cuStreamWaitEvent"] == 1


def test_an_error_is_raised_by_the_next_call(gpu: FakeGpu) -> None:
    x = torch.randn(4, 16)
    region, _ = region_of(lambda x: x + 1, x)
    gpu.fails = True
    region((x,))
    with pytest.raises(KernelTimeoutError, match="waited too long for the loader warp"):
        region((x,))
    torch.testing.assert_close(region((x,))[0], x + 1)


def test_synchronize_raises_what_no_call_has_raised(gpu: FakeGpu) -> None:
    x = torch.randn(4, 16)
    region, _ = region_of(lambda x: x + 1, x)
    gpu.fails = True
    region((x,))
    with pytest.raises(KernelTimeoutError):
        synchronize()
    synchronize()


def test_an_error_that_nobody_waited_for_is_a_warning(gpu: FakeGpu) -> None:
    x = torch.randn(4, 16)
    gpu.fails = True
    with pytest.warns(RuntimeWarning, match="nobody waited for it: task"):
        region_of(lambda x: x + 1, x)[0]((x,))  # the region ends here


def test_a_tensor_on_another_device_is_refused(gpu: FakeGpu) -> None:
    region, call = region_of(lambda x: x + 1, torch.randn(4, 16))
    call._ordinal = 0  # as if the program ran on GPU 0
    for elsewhere in ("cpu", "meta"):
        with pytest.raises(DeviceError, match=f"argument 0 is on {elsewhere}, the program runs on"):
            region((torch.randn(4, 16, device=elsewhere),))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_captured_call_replays_with_memory_of_its_own(gpu: FakeGpu, transposed: bool) -> None:
    x, y = torch.randn(8, 64), torch.randn(8, 64)
    x = torch.randn(64, 8).t() if transposed else x
    region, call = region_of(function, x, y)
    region((x, y))
    gpu.capturing = True
    (result,) = region((x, y))
    gpu.capturing = False
    assert len(gpu.graph) == (5 if transposed else 3), "scratch and counters made anew, the launch, copies"
    for _ in range(2):
        x.mul_(2)
        y.mul_(2)
        for work in gpu.graph:
            work()
        torch.testing.assert_close(result, function(x, y))
        torch.testing.assert_close(region((x, y))[0], function(x, y))  # calls outside the graph go on
    assert call.executor._first_step == 3, "the graph's steps are not counted"
    region.bind({}.__getitem__)
    del call
    gc.collect()
    gpu.graph[2]()  # its memory is still there


def test_what_must_happen_before_a_capture_is_said(gpu: FakeGpu) -> None:
    x, model = torch.randn(8, 64), torch.nn.Linear(64, 64)
    compiled = torch.compile(model, backend=mpk)
    gpu.capturing = True
    with pytest.raises(UsageError, match="a region is to be compiled, while a CUDA graph is captured"):
        compiled(x)
    gpu.capturing = False
    compiled(x)
    model.weight.mul_(2)
    gpu.capturing = True
    with pytest.raises(UsageError, match="parameters have changed") as caught:
        compiled(x)
    assert caught.value.advice == "call it once before the capture"
    gpu.capturing = False
    torch.testing.assert_close(compiled(x), model(x))


def test_parameters_made_in_inference_mode_are_seen_to_change(gpu: FakeGpu) -> None:
    with torch.inference_mode():
        model, x = torch.nn.Linear(64, 64), torch.randn(8, 64)
        compiled = torch.compile(model, backend=mpk)
        torch.testing.assert_close(compiled(x), model(x))
        model.weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))


def test_a_call_takes_microseconds(gpu: FakeGpu) -> None:
    x, y = torch.randn(8, 64), torch.randn(8, 64)
    region, call = region_of(function, x, y)
    for _ in range(3):
        region((x, y))
    call.executor._launch._call = partial(_succeed)
    seconds: list[float] = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(200):
            region((x, y))
        seconds.append((time.process_time() - begin) / 200)
    assert min(seconds) < 40e-6, f"{1e6 * min(seconds):.1f} us; about 4 where nothing else runs"


def test_plans_for_several_shapes_share_their_weights(gpu: FakeGpu) -> None:
    """A weight is packed once, however many sizes are met, and again when it changes."""
    model = torch.nn.Linear(256, 512, bias=False).bfloat16()
    weight_bytes = 2 * 256 * 512
    compiled = torch.compile(model, backend=mpk, dynamic=True)

    def large() -> int:
        return sum(len(memory) >= weight_bytes for memory in gpu.memory.values())

    for rows in (4, 6, 8):
        x = torch.randn(rows, 256).bfloat16()
        torch.testing.assert_close(compiled(x), model(x), rtol=0.05, atol=0.05)
        assert large() == 1
    model.weight.mul_(2)
    for rows in (6, 8, 4):
        x = torch.randn(rows, 256).bfloat16()
        torch.testing.assert_close(compiled(x), model(x), rtol=0.05, atol=0.05)
    assert large() == 1, "what was packed before goes with the last plan that reads it"
