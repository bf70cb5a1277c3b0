"""The graph of a model: its operations by layer, noted while it is called."""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from fitkit.data.structure import leaves
from fitkit.interop import is_keras
from fitkit.watch.layers import named_layers

__all__ = ["GraphRecorder", "Node", "graph_proto"]

_SILENT = {"detach", "alias", "t", "lift_fresh"}  # a name for the same numbers
_Call = Callable[..., Any]


class Node(NamedTuple):
    """One operation.

    Attributes:
        name: Path of its layer and name, unique.
        op: What TensorBoard calls it.
        inputs: Names of the nodes it reads.
        shape: Of its first output.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


def graph_proto(nodes: Iterable[Node]) -> bytes:
    """Return a serialized `GraphDef`."""
    protos: Any = [
        import_module(f"tensorboard.compat.proto.{name}_pb2")
        for name in ("graph", "node_def", "attr_value", "tensor_shape", "versions")
    ]
    graph, node_def, attr_value, shapes, versions = protos

    def shape_of(node: Node) -> Any:
        dims = [shapes.TensorShapeProto.Dim(size=size) for size in node.shape]
        values = attr_value.AttrValue.ListValue(shape=[shapes.TensorShapeProto(dim=dims)])
        return attr_value.AttrValue(list=values)

    listed = [
        node_def.NodeDef(
            name=node.name, op=node.op, input=node.inputs, attr={"_output_shapes": shape_of(node)}
        )
        for node in nodes
    ]
    return graph.GraphDef(
        node=listed, versions=versions.VersionDef(producer=22)
    ).SerializeToString()


class GraphRecorder(TorchDispatchMode):
    """Notes every operation of the next call of a model, its layer, and where its inputs come from.

    The call itself goes on as ever; what goes wrong here is kept in `error`.

    Args:
        model: Whose calls are meant.

    Attributes:
        nodes: In the order of the forward pass.
        error: What could not be noted, None if all was.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # torch leaves it open
        self.nodes: list[Node] = []
        self.error: Exception | None = None
        self._model = model
        self._scope: list[str] = []
        self._numbers: Counter[str] = Counter()
        self._makers: dict[Hashable, str] = {}
        self._weights = {id(p): name for name, p in model.named_parameters()}
        self._weights |= {id(b): name for name, b in model.named_buffers()}
        if is_keras(model, "Layer"):
            variables: list[Any] = cast(Any, model).variables
            self._weights |= {id(v.value): v.path.replace("/", ".") for v in variables}

    @contextmanager
    def watching(self) -> Generator[None]:
        """Note the first call of the model in this context."""
        with ExitStack() as exits:
            for layer, name in self._named_layers():
                method = "call" if is_keras(layer, "Layer") else "forward"
                own = cast("dict[str, Any]", vars(layer))
                if method in own:
                    continue
                call = getattr(layer, method)
                is_model = layer is self._model  # its layers are to be seen at once
                own[method] = self._whole(call) if is_model else self._within(name, call)
                exits.callback(own.pop, method, None)
            yield

    def _named_layers(self) -> Iterable[tuple[Any, str]]:
        for each in named_layers(self._model):  # without what Keras wraps around layers for itself
            layer: Any = each.module
            keras = is_keras(layer, "Layer")
            name: str = layer.name if keras else each.name.rsplit(".", 1)[-1]
            if not keras and (not name or name.isdigit()):
                name = f"{type(layer).__name__}{name and '_'}{name}"
            yield layer, name

    def _whole(self, call: _Call) -> _Call:
        def called(*args: Any, **kwargs: Any) -> Any:
            if self.nodes or self.error:
                return call(*args, **kwargs)
            self._try(self._begin, args, kwargs)
            with self:
                outputs = call(*args, **kwargs)
            self._try(self._end, outputs)
            return outputs

        return called

    def _within(self, name: str, call: _Call) -> _Call:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._scope.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                self._scope.pop()

        return called

    def __torch_dispatch__(
        self, op: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        outputs = op(*args, **(kwargs or {}))
        self._try(self._operation, op, [args, kwargs or {}], outputs)
        return outputs

    def _try(self, note: Callable[..., None], *args: Any) -> None:
        if self.error is None:
            try:
                note(*args)
            except Exception as error:  # whatever a model does; a picture is not worth the run
                self.error = error

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = (args[0] if len(args) == 1 else args) if args else kwargs
        for path, leaf in leaves(inputs, "inputs"):
            if isinstance(leaf, Tensor):
                self._put(leaf, self._node(path, "Placeholder", (), leaf))

    def _operation(self, op: Any, arguments: Any, outputs: Any) -> None:
        name = op.overloadpacket.__name__.strip("_")
        read = [leaf for _, leaf in leaves(arguments) if isinstance(leaf, Tensor)]
        made = [leaf for _, leaf in leaves(outputs) if isinstance(leaf, Tensor)]
        if not made or (not read and name not in ("arange", "full", "zeros", "ones")):
            return
        sources = self._sources(read)
        node = sources[0] if name in _SILENT else self._node(name, name, sources, made[0])
        for tensor in made:
            self._put(tensor, node)

    def _end(self, outputs: Any) -> None:
        for path, leaf in leaves(outputs, "outputs"):
            if isinstance(leaf, Tensor):
                self._node(path, "Output", self._sources([leaf]), leaf)

    def _node(self, name: str, op: str, inputs: tuple[str, ...], like: Tensor) -> str:
        """Add a node in the current layer; return its unique name."""
        path = "/".join([*self._scope, name])
        self._numbers[path] += 1
        number = self._numbers[path]
        unique = path if number == 1 else f"{path}_{number}"
        self.nodes.append(Node(unique, op, inputs, tuple(map(int, like.shape))))
        return unique

    def _put(self, tensor: Tensor, node: str) -> None:
        """Note which node a tensor comes from."""
        self._makers[_memory(tensor)] = node

    def _sources(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """Return the nodes that tensors come from; weights and constants become nodes here."""
        for tensor in tensors:
            if _memory(tensor) not in self._makers:
                name = self._weights.get(id(tensor), "constant").rsplit(".", 1)[-1]
                op = "Parameter" if id(tensor) in self._weights else "Const"
                self._put(tensor, self._node(name, op, (), tensor))
        return tuple(self._makers[_memory(tensor)] for tensor in tensors)


def _memory(tensor: Tensor) -> Hashable:
    # Autograd makes new tensors of views. The reference keeps the numbers from being held, and
    # the address from being used again.
    storage = StorageWeakRef(tensor.untyped_storage())
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride()
