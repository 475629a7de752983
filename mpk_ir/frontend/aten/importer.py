"""A functional ATen graph as a `tg` function: what torch.export and AOTAutograd leave after decomposition.

Parameters are referred to by name, never copied; buffers that the graph mutates are states.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg
from .emitter import Emitter, element_of_dtype, source_location, tg_shape
from .interface import Constant, Imported, Value
from .rules import all_rules, apply_rule, name_of, unsupported

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

IGNORED = frozenset({"_assert_tensor_metadata.default", "_assert_async.msg", "_assert_scalar.default"})
"""Ops without a result that tell what tracing assumed."""

LEAVE_IT = "leave the op to PyTorch: torch.compile(model, backend='mpk') does so by itself"


@dataclass(frozen=True)
class Roles:
    """What the placeholders of a graph are: by number, the name of a parameter or of a state; else an argument.
    ``updates``: by number of the result, the state whose new value it is."""

    parameters: Mapping[int, str] = field(default_factory=dict[int, str])
    states: Mapping[int, str] = field(default_factory=dict[int, str])
    updates: Mapping[int, str] = field(default_factory=dict[int, str])


def import_graph(module: GraphModule, roles: Roles) -> Imported:
    """``module`` as `tg`. Raises UnsupportedError for what cannot be expressed, with the user's line of Python."""
    return _Importer(module, roles).run()


def why_unsupported(node: Node) -> str | None:
    """Why ``node`` does not become `tg`; None if nothing is known to be in the way."""
    return _why_no_place(node) or _why_refused(node)


def _why_no_place(node: Node) -> str | None:
    """Why ``node`` has no rule, or its values no place in `tg`."""
    if node.target is operator.getitem or _is_number(node):
        return None
    if node.op != "call_function":
        return f"a node of kind '{node.op}'"
    name = name_of(node)
    if name in IGNORED:
        return None
    if name not in all_rules():
        return f"no rule for aten op '{name}'"
    for value in (node, *node.all_input_nodes):
        if (why := _why_no_value(value)) is not None:
            return f"{name}: {why}"
    if name != "cat.default" and not is_empty(node) and any(map(is_empty, node.all_input_nodes)):
        return f"{name}: makes elements of a tensor that has none"
    return None


def _why_refused(node: Node) -> str | None:
    """What the rule says to these very arguments, on scratch values; None where sizes are symbolic."""
    import torch

    if name_of(node) not in all_rules() or is_empty(node) or _is_number(node):
        return None
    emitter = Emitter(Block())

    def known(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [known(one) for one in argument if not (isinstance(one, torch.fx.Node) and is_empty(one))]
        if not isinstance(argument, torch.fx.Node):
            return argument
        value = argument.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return value
        type_ = tg.tensor(tg_shape(value.shape), element_of_dtype(value.dtype))
        return emitter.block.insert_arg(type_, len(emitter.block.args))

    if any(is_symbolic(one.meta.get("val")) for one in (node, *node.all_input_nodes)):
        return None
    try:
        apply_rule(emitter, node, tuple(map(known, node.args)), {key: known(one) for key, one in node.kwargs.items()})
    except UnsupportedError as error:
        return error.message if name_of(node) in error.message else f"{name_of(node)}: {error.message}"
    return None


def is_symbolic(value: Any) -> bool:
    """Whether ``value``, a node's, has a size that the graph leaves open."""
    import torch

    values = value if isinstance(value, list | tuple) else (value,)
    sizes = [size for one in values if isinstance(one, torch.Tensor) for size in (*one.shape, *one.stride())]
    return any(isinstance(one, torch.SymInt | torch.SymFloat | torch.SymBool) for one in (*values, *sizes))


def is_empty(node: Node) -> bool:
    """Whether ``node`` is a tensor without elements: those are never computed."""
    import torch

    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and any(size == 0 for size in value.shape)


def _why_no_value(node: Node) -> str | None:
    import torch

    for value in _tensors(node.meta.get("val")):
        if _is_data_dependent(value):
            return "the shape depends on data"
        if value.dtype not in (torch.float32, torch.bfloat16, torch.int32, torch.int64, torch.bool):
            return f"elements of {str(value.dtype).removeprefix('torch.')}"
        if value.layout is not torch.strided:
            return f"a tensor of layout {value.layout}"
    return None


def _is_number(node: Node) -> bool:
    """Whether ``node`` computes a size, known when the graph is specialized."""
    import torch

    return isinstance(node.meta.get("val"), int | float | torch.SymInt | torch.SymFloat | torch.SymBool)


def _is_data_dependent(value: torch.Tensor) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(value))


def _tensors(value: Any) -> list[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    return [one for one in value if isinstance(one, torch.Tensor)] if isinstance(value, list | tuple) else []


Known: TypeAlias = "SSAValue | list[SSAValue | None] | int | float | bool | None"


class _Importer:
    """One walk over a graph. ``values`` holds what each node became."""

    def __init__(self, module: GraphModule, roles: Roles) -> None:
        self.module = module
        self.roles = roles
        self.emitter = Emitter(Block())
        self.values: dict[Node, Known] = {}
        self.inputs: dict[int, Value] = {}
        self.states: dict[str, Value] = {}
        self.arguments: dict[Node, int] = {}
        self.constants: dict[str, torch.Tensor] = {}

    def run(self) -> Imported:
        placeholders = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        for number, node in enumerate(placeholders):
            self._placeholder(number, node)
        for node in self.module.graph.nodes:
            match node.op:
                case "placeholder":
                    pass
                case "get_attr":
                    self._attribute(node)
                case "call_function":
                    self._call(node)
                case "output":
                    return self._finish(node)
                case _:
                    raise unsupported(node, f"a node of kind '{node.op}'")
        raise AssertionError("a graph ends in its output")

    def _placeholder(self, number: int, node: Node) -> None:
        import torch

        self.arguments[node] = number
        example = node.meta.get("val")
        if not isinstance(example, torch.Tensor):
            self.values[node] = example if isinstance(example, int | float | bool) else None
            return
        if not node.users or is_empty(node):
            return
        if (why := _why_no_value(node)) is not None:
            raise unsupported(node, f"argument '{node.name}': {why}")
        type_ = tg.tensor(tg_shape(example.shape), element_of_dtype(example.dtype))
        if number in self.roles.parameters:
            name = self.roles.parameters[number]
            self.values[node] = self.emitter.emit(tg.ParamOp(name, type_))
        elif number in self.roles.states:
            self.values[node] = self._state(self.roles.states[number], example)
        else:
            argument = self.emitter.block.insert_arg(type_, len(self.emitter.block.args))
            argument.name_hint = f"arg{number}"
            self.values[node] = argument
            self.inputs[number] = value_of(f"arg{number}", example)

    def _state(self, name: str, example: torch.Tensor) -> SSAValue:
        """A state as rows of its last dimension, seen under its own shape."""
        self.states[name] = value_of(name, example)
        shape = flat_shape(tg_shape(example.shape))
        state = self.emitter.emit(tg.StateOp(name, tg.tensor(shape, element_of_dtype(example.dtype))))
        return self.emitter.reshape(state, example.shape)

    def _attribute(self, node: Node) -> None:
        """A tensor that tracing found in Python: a constant of the graph, bound as a parameter."""
        import torch

        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            raise unsupported(node, f"attribute '{node.target}' is no tensor")
        name = f"constant.{node.target}"
        self.constants[name] = value
        node.meta.setdefault("val", value)
        type_ = tg.tensor(tg_shape(value.shape), element_of_dtype(value.dtype))
        self.values[node] = self.emitter.emit(tg.ParamOp(name, type_))

    def _call(self, node: Node) -> None:
        if node.target is operator.getitem:
            source, index = node.args
            parts = self.values[source]  # pyright: ignore[reportArgumentType]
            assert isinstance(parts, list)
            self.values[node] = parts[index]  # pyright: ignore[reportArgumentType, reportCallIssue]
            if self.values[node] is None and node.users:
                raise unsupported(node, f"result {index} of '{name_of(source)}'")  # pyright: ignore[reportArgumentType]
            return
        if name_of(node) in IGNORED:
            return
        if _is_number(node):
            self.values[node] = node.meta["val"]
            return
        if (why := _why_no_place(node)) is not None:
            raise unsupported(node, why, advice=advice_on(why) or LEAVE_IT)
        if is_empty(node):
            return
        self.emitter.location = source_location(node)
        args = tuple(self._known(argument) for argument in node.args)
        kwargs = {name: self._known(argument) for name, argument in node.kwargs.items()}
        value = apply_rule(self.emitter, node, args, kwargs)
        if isinstance(value, SSAValue):
            self._check(node, value)
        self.values[node] = value

    def _check(self, node: Node, value: SSAValue) -> None:
        """That the rule agrees with PyTorch."""
        example = node.meta["val"]
        found, expected = tg.type_of(value), tg.tensor(tg_shape(example.shape), element_of_dtype(example.dtype))
        assert found == expected, f"aten {name_of(node)}: the rule made {found}, PyTorch says {expected}"

    def _known(self, argument: Any) -> Any:
        import torch

        if isinstance(argument, torch.fx.Node):
            return self.values.get(argument)
        if isinstance(argument, list | tuple):
            kept = [one for one in argument if not (isinstance(one, torch.fx.Node) and is_empty(one))]
            return [self._known(one) for one in kept]
        return argument

    def _finish(self, node: Node) -> Imported:
        import torch

        outputs = node.args[0]
        listed = outputs if isinstance(outputs, list | tuple) else [outputs]
        returned: list[SSAValue] = []
        results: list[Value | Constant] = []
        for number, output in enumerate(listed):
            value = self._known(output)
            if number in self.roles.updates:
                name = self.roles.updates[number]
                shape = flat_shape(tg.shape_of(value))
                self.emitter.emit_update(name, self.emitter.reshape(value, shape))
            elif isinstance(output, torch.fx.Node) and output in self.arguments and self._is_argument(output):
                results.append(Constant(argument=self.arguments[output]))
            elif isinstance(output, torch.fx.Node) and is_empty(output):
                results.append(value_of("", output.meta["val"]))
            elif isinstance(value, SSAValue):
                assert isinstance(output, torch.fx.Node)
                results.append(value_of(f"result{len(returned)}", output.meta["val"]))
                returned.append(value)
            else:
                results.append(Constant(value))
        self.emitter.block.add_op(ReturnOp(*returned))
        block = self.emitter.block
        types = [argument.type for argument in block.args], [value.type for value in returned]
        module = ModuleOp([FuncOp("step", types, Region(block))])
        return Imported(module, self.inputs, tuple(results), self.constants, self.states)

    def _is_argument(self, node: Node) -> bool:
        number = self.arguments[node]
        return number not in self.roles.states


def value_of(name: str, example: torch.Tensor) -> Value:
    """How ``example`` crosses the border."""
    return Value(name, tuple(example.shape), tuple(example.stride()), example.dtype)


def flat_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Rows of the last dimension."""
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return (rows, shape[-1]) if len(shape) > 1 else tuple(shape)


def advice_on(why: str) -> str | None:
    """What a user can change about an op that does not become `tg`."""
    if "depends on data" in why:
        return "make the shape a constant (torch.where instead of masks, fixed sizes instead of .item())"
    return None
