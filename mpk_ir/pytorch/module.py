"""A module or exported program compiled whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..compiler import Compilation
from ..core.errors import DeviceError, UnsupportedError, UsageError
from ..core.target import Target
from ..frontend.aten.emitter import innermost_line
from ..frontend.aten.importer import Roles, import_graph
from ..frontend.aten.interface import Imported
from ..runtime.weight_pool import WeightPool
from .lazy_region import specialized
from .plan_cache import Key, PlanCache
from .region import Region

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from ..runtime.driver import Device


class CompiledModule:
    """A module as one kernel, called as the module is; with dynamic shapes, one kernel for each shape met.

    Buffers that it mutates live with the kernel. ``recompilations`` says why each kernel beyond the first was made.
    """

    def __init__(self, program: ExportedProgram, target: Target, device: Device | None = None) -> None:
        self.exported = decomposed(program)
        self._tensors: dict[str, Any] = {**self.exported.state_dict, **self.exported.constants}
        check_devices(self._tensors)
        self._target, self._device = target, device
        self._border = roles_of(self.exported)
        self._remember(self._border)
        self._pool = WeightPool()
        self._plans = PlanCache[Region](self.exported.graph_module, self._first_argument)
        self.recompilations: list[str] = []
        arguments = self._example()
        key = self._plans.key(arguments)
        self.region = self._compile(arguments)
        self._plans.add(key, self.region)
        for name in self.imported.states:
            self.region.write_state(name, self._tensors[name])

    @property
    def imported(self) -> Imported:
        """The graph as `tg`, for the shapes of the latest call."""
        return self.region.imported

    @property
    def compilation(self) -> Compilation:
        return self.region.compilation

    @property
    def program(self) -> Any:
        """The `Program` that runs."""
        return self.region.program

    def _remember(self, border: Border) -> None:
        """What calls need; torch's ``call_spec`` is made anew each time that it is asked for."""
        import torch
        from torch.utils import _pytree

        spec = self.exported.call_spec
        assert spec.in_spec is not None
        assert spec.out_spec is not None
        self._in_spec, self._out_spec = spec.in_spec, spec.out_spec
        self._arguments, self._mutated = border.arguments, border.mutated
        self._first_argument = min(border.arguments, default=0)
        written = {result for result, _ in border.mutated}
        self._returned = [number for number in range(border.num_results) if number not in written]
        self._returns_one = self._out_spec == _pytree.tree_flatten(None)[1]
        self._plain = self._in_spec == _pytree.tree_flatten(((None,) * len(border.arguments), {}))[1]
        self._leaves = frozenset({torch.Tensor, torch.nn.Parameter, int, float, bool, type(None)})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's forward. Raises UsageError for arguments of another structure, or of a shape that the program
        was not exported for."""
        flat = self._flatten(args, kwargs)
        arguments: list[Any] = [None] * self._first_argument + flat
        if self._plans.symbols:
            self._choose(arguments)
        _check_arguments(flat, self.imported, self._arguments)
        results = self.region(arguments)
        for result, argument in self._mutated:
            flat[argument].copy_(results[result])
        users = [results[number] for number in self._returned]
        if self._returns_one:
            return users[0]
        from torch.utils import _pytree

        return _pytree.tree_unflatten(users, self._out_spec)

    def _choose(self, arguments: list[Any]) -> None:
        """Make the kernel for these shapes the current one; it takes over the states."""
        key = self._plans.key(arguments)
        region = self._plans.plans.get(key)
        if region is self.region:
            return
        if region is None:
            self._plans.require_range(key, self.exported.range_constraints)
            self._require_shapes(arguments, key)
            region = self._compile(arguments)
            self.recompilations.append(self._plans.add(key, region))
        for name in self.imported.states:
            region.write_state(name, self.region.read_state(name))
        self.region = region

    def _compile(self, arguments: list[Any]) -> Region:
        """A kernel for the shapes of ``arguments``, of which the parameters may be missing."""
        roles, graph = self._border.roles, self.exported.graph_module
        if self._plans.symbols:
            bound = {**roles.parameters, **roles.states}
            whole = [self._tensors[bound[number]] if number in bound else one for number, one in enumerate(arguments)]
            graph = specialized(graph, whole)
        imported = import_graph(graph, roles)
        return Region(imported, self._target, self._device, self._tensors.__getitem__, self._pool)

    def _example(self) -> list[Any]:
        """The arguments that the program was exported with."""
        from torch.utils import _pytree

        missing: list[Any] = [None] * self._first_argument
        if not self._plans.symbols:
            return missing
        if self.exported.example_inputs is None:
            raise UsageError(
                "the exported program has dynamic shapes and no example inputs",
                advice="set program.example_inputs, or export it again",
            )
        return missing + _pytree.tree_leaves(self.exported.example_inputs, is_leaf=lambda one: one is None)

    def _require_shapes(self, arguments: list[Any], key: Key) -> None:
        for place, number in enumerate(self._arguments):
            expected = self._plans.shape(number, key)
            if expected is not None and tuple(arguments[number].shape) != expected:
                found = list(arguments[number].shape)
                raise UsageError(
                    f"argument {place}: found shape {found}, expected {list(expected)} by the sizes of the others",
                    advice="sizes that torch.export gave one name must be equal in a call",
                )

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        from torch.utils import _pytree

        if (
            self._plain
            and not kwargs
            and len(args) == len(self._arguments)
            and self._leaves.issuperset(map(type, args))
        ):
            return list(args)
        flat, spec = _pytree.tree_flatten((args, kwargs))
        if spec != self._in_spec:
            raise UsageError(
                "the arguments are nested or named differently from the example inputs",
                advice="call with what mpk_ir.compile was given, or compile again",
            )
        return flat

    def state(self, name: str) -> torch.Tensor:
        """A copy of the mutated buffer called ``name``."""
        return self.region.read_state(name)

    def set_state(self, name: str, value: torch.Tensor) -> None:
        """Replace the mutated buffer called ``name``."""
        self.region.write_state(name, value)


def export(model: torch.nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None = None) -> ExportedProgram:
    """``model`` as torch.export sees it with these example inputs. Raises UnsupportedError where it cannot, DeviceError
    for tensors on several devices."""
    import torch

    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    given = {f"argument {number}": one for number, one in enumerate(args)} | dict(kwargs or {})
    check_devices({**dict(model.named_parameters()), **dict(model.named_buffers()), **given})
    try:
        with torch.no_grad():
            return torch.export.export(model, args, dict(kwargs or {}), strict=True)
    except Exception as error:
        raise UnsupportedError(
            f"torch.export cannot trace the model whole: {_first_line(error)}",
            where=innermost_line(str(error)),
            advice="take the data-dependent branch or loop out of forward, or use torch.compile(model, backend='mpk'), "
            "which leaves it to Python",
        ) from error


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """Core ATen, functional."""
    import torch

    with torch.no_grad(), plain_attention():
        return program.run_decompositions()


def plain_attention() -> AbstractContextManager[Any]:
    """While it lasts torch takes `scaled_dot_product_attention` apart, also on a GPU, where it has kernels for it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def check_devices(tensors: Mapping[str, Any]) -> None:
    """Raise DeviceError if the tensors live on more than one device."""
    import torch

    places: dict[torch.device, str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            places.setdefault(tensor.device, name)
    if len(places) > 1:
        (first, one), (second, other), *_ = places.items()
        raise DeviceError(
            f"tensors on different devices: '{one}' on {first}, '{other}' on {second}",
            advice="move the model and its inputs to one device: model.to(...), tensor.to(...)",
        )


@dataclass(frozen=True)
class Border:
    """``roles`` of an exported graph's placeholders, the numbers of those that are ``arguments``, the last ones; and of
    ``num_results`` results the (result, argument) pairs of the arguments that the graph mutates."""

    roles: Roles
    arguments: list[int]
    mutated: list[tuple[int, int]]
    num_results: int


def roles_of(program: ExportedProgram) -> Border:
    """What crosses the border of ``program``."""
    from torch.export.graph_signature import InputKind, OutputKind

    signature = program.graph_signature
    mutated = {
        spec.target for spec in signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION and spec.target
    }
    parameters, states, arguments = dict[int, str](), dict[int, str](), list[int]()
    names: list[str] = []
    for number, spec in enumerate(signature.input_specs):
        if spec.kind is InputKind.USER_INPUT:
            arguments.append(number)
            names.append(getattr(spec.arg, "name", ""))
        elif spec.target in mutated:
            states[number] = str(spec.target)
        elif spec.target is not None:
            parameters[number] = str(spec.target)
    updates = dict[int, str]()
    returned: list[tuple[int, int]] = []
    kept = 0
    for number, spec in enumerate(signature.output_specs):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            updates[number] = str(spec.target)
            continue
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            returned.append((kept, names.index(str(spec.target))))
        kept += 1
    return Border(Roles(parameters, states, updates), arguments, returned, kept)


def _check_arguments(flat: Sequence[Any], imported: Imported, numbers: Sequence[int]) -> None:
    for argument, number in zip(flat, numbers, strict=True):
        wanted = imported.inputs.get(number)
        if wanted is None:
            continue
        if not hasattr(argument, "shape"):
            raise UsageError(
                f"argument {numbers.index(number)}: found a {type(argument).__name__}, compiled for a tensor of shape "
                f"{list(wanted.shape)}"
            )
        found = tuple(argument.shape), argument.dtype
        if found != (wanted.shape, wanted.dtype):
            raise UsageError(
                f"argument {numbers.index(number)}: found shape {list(found[0])} of {found[1]}, compiled for "
                f"{list(wanted.shape)} of {wanted.dtype}",
                advice="compile again with example inputs of this shape, or use torch.compile(model, backend='mpk')",
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
