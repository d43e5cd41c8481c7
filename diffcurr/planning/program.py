"""What a program costs: operations read from its jaxpr; memory and traffic from what it compiles to."""

import dataclasses
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(jaxpr: Jaxpr) -> float:
    """Floating-point operations of the matrix products and convolutions of a program, two for a multiply and add.

    Bodies of scans count as often as they run, of branches the dearest, of loops of unknown length once. What is
    recomputed in a backward pass counts each time.
    """
    return sum(flops_by_dtype(jaxpr).values())


def flops_by_dtype(jaxpr: Jaxpr) -> dict[str, float]:
    """Those of `matmul_flops`, by the dtype of what is multiplied."""
    total: dict[str, float] = {}

    def add(flops: Mapping[str, float], times: int = 1) -> None:
        total.update({dtype: total.get(dtype, 0.0) + times * number for dtype, number in flops.items()})

    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lhs = _shape(eqn.invars[0])
            per_output = math.prod(lhs[axis] for axis in contracted)
            add({_dtype(eqn.invars[0]): 2.0 * math.prod(_shape(eqn.outvars[0])) * per_output})
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, layout = _shape(eqn.invars[1]), eqn.params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) / kernel[layout[0]]
            add({_dtype(eqn.invars[0]): 2.0 * math.prod(_shape(eqn.outvars[0])) * per_output})
        elif eqn.primitive.name == "cond":
            branches = [flops_by_dtype(branch.jaxpr) for branch in eqn.params["branches"]]
            add(max(branches, key=lambda flops: sum(flops.values())))
        else:
            for inner in _inner(eqn.params):
                add(flops_by_dtype(inner), eqn.params["length"] if eqn.primitive.name == "scan" else 1)
    return total


def _dtype(variable: Any) -> str:
    return str(variable.aval.dtype)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, per device.

    Attributes:
      seconds: the time that compiling took.
      argument_bytes: memory of the arguments.
      temporary_bytes: memory of temporaries, and of results that take no argument's place.
      program_bytes: memory of the program itself.
      flops: floating-point operations as the compiler counts them: the bodies of loops once.
      cycles: the compiler's own estimate, as the function `estimated_cycles` adds it up; 0 if it makes none.
      traffic: the collective operations by kind, as the function `traffic` reads them.
      needed: the compiler's words if the program does not fit; then all the fields but `seconds` are empty.
    """

    seconds: float
    argument_bytes: int = 0
    temporary_bytes: int = 0
    program_bytes: int = 0
    flops: float = 0.0
    cycles: float = 0.0
    traffic: "dict[str, Traffic]" = dataclasses.field(default_factory=dict)
    needed: str = ""

    @property
    def total_bytes(self) -> int:
        """Bytes of memory on each device."""
        return self.argument_bytes + self.temporary_bytes + self.program_bytes

    def fits(self, memory: float) -> bool:
        """Whether a device with so many bytes of memory can run the program."""
        return not self.needed and self.total_bytes <= memory


def measure(jitted: Any, *arguments: Any) -> Compiled:
    """Compiles a jitted function for the devices that its (abstract) arguments lie on."""
    # XLA picks kernels for GPUs by timing them. Where there is none to time, its own choice for matrix products can
    # fail to compile, so they are the library's.
    gpu = any(d.platform == "gpu" for leaf in jax.tree.leaves(arguments[0]) for d in leaf.sharding.device_set)
    options = {"xla_gpu_enable_triton_gemm": False} if gpu else None
    began = time.perf_counter()
    try:
        compiled = jitted.lower(*arguments).compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        words = re.search(r"the total memory required[^.]*\.[^.]*\.[^.]*\.", str(error))
        return Compiled(time.perf_counter() - began, needed=" ".join((words[0] if words else str(error)).split()))
    seconds, memory, costs, text = (
        time.perf_counter() - began,
        compiled.memory_analysis(),
        compiled.cost_analysis(),
        compiled.as_text(),
    )
    return Compiled(
        seconds=seconds,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        program_bytes=memory.generated_code_size_in_bytes,
        flops=costs["flops"] if costs else 0.0,
        cycles=estimated_cycles(text),
        traffic=traffic(text),
    )


def bytes_a_chip(tree: Any) -> int:
    """Bytes that arrays take on each device; of each, a shape with a dtype and a sharding suffices."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


class Traffic(NamedTuple):
    """One kind of collective operation in a program.

    Attributes:
      operations: how many are executed.
      bytes: what each device sends in all of them, each done with the least traffic that it allows.
    """

    operations: int
    bytes: float


_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) .*\{$")
_COLLECTIVE = re.compile(
    r" = (?P<result>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
_CALLED = re.compile(r"(?:calls|to_apply|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)")
_WHILE = re.compile(r" while\(.*condition=%(?P<condition>[\w.\-]+), body=%(?P<body>[\w.\-]+)")
_INSTRUCTION = re.compile(
    r"^\s*(?P<root>ROOT )?%(?P<name>[\w.\-]+) = .*? (?P<op>[a-z][\w\-]*)\((?P<operands>[^)]*)\)(?P<rest>.*)$"
)
_NAME = r"%([\w.\-]+)"
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b(?P<type>pred|[suf]\d+|bf16|f8\w*)\[(?P<shape>[\d,]*)\]")


def traffic(compiled: str) -> dict[str, Traffic]:
    """The collective operations of a compiled program's text, by kind; what loops repeat counts as often.

    Raises:
      ValueError: if a loop's length cannot be read, or the text has no entry.
    """
    entry, computations = _computations(compiled)
    # An operation that the TPU's compiler spreads over the loops beside it is written once in each, on one channel: it
    # is executed as often as where it starts.
    found: dict[tuple[str, str, str], tuple[int, float]] = {}
    for name, line, times in _executed(entry, 1, computations):
        if match := _COLLECTIVE.search(line):
            kind, arrays = match["kind"], [array[0] for array in _ARRAY.finditer(match["result"])]
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "all-reduce-scatter"  # fused with the slice that each device keeps of it
            channel = re.search(r"channel_id=(\d+)", line)
            key = kind, channel[1] if channel else line, " ".join(arrays)
            sent = _sent(kind, bool(match["start"]), match["result"], _group_size(line))
            found[key] = min(found.get(key, (times, sent)), (times, sent))
    result: dict[str, Traffic] = {}
    for (kind, *_), (times, sent) in sorted(found.items()):
        kind = "reduce-scatter" if kind == "all-reduce-scatter" else kind
        before = result.get(kind, Traffic(0, 0.0))
        result[kind] = Traffic(before.operations + times, before.bytes + times * sent)
    return result


def estimated_cycles(compiled: str) -> float:
    """The cycles that the compiler expects of a program's fusions and loops, one after another; 0 if it says nothing.

    A TPU's compiler writes them beside each; what loops repeat counts as often. They are a model's, which the compiler
    uses to choose between programs: neither waiting for other chips nor most memory traffic is in them.
    """
    entry, computations = _computations(compiled)
    known = ((times, _CYCLES.search(line)) for _, line, times in _executed(entry, 1, computations))
    return float(sum(times * int(cycles[1]) for times, cycles in known if cycles))


def _computations(compiled: str) -> tuple[str, dict[str, list[str]]]:
    """(name of the entry, name of each computation -> its lines) of a program's text."""
    computations: dict[str, list[str]] = {}
    entry, lines = None, []
    for line in compiled.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations.setdefault(match["name"], [])
            entry = match["name"] if line.startswith("ENTRY") else entry
        else:
            lines.append(line)
    if entry is None:
        raise ValueError("the text of the program has no entry")
    return entry, computations


def _executed(name: str, times: int, computations: dict[str, list[str]]) -> Iterator[tuple[str, str, int]]:
    """(computation, instruction, how often it is executed): all that is reached from a computation."""
    for line in computations[name]:
        yield name, line, times
        if match := _WHILE.search(line):
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
            condition, body = computations[match["condition"]], computations[match["body"]]
            length = int(known[1]) if known else _trip_count(condition, body)
            yield from _executed(match["body"], times * length, computations)
        elif match := _CALLED.search(line):
            for called in re.findall(r"%([\w.\-]+)", match[1]):
                yield from _executed(called, times, computations)


def _trip_count(condition: list[str], body: list[str]) -> int:
    """The iterations of a loop that counts from 0 to a constant in constant steps, as JAX's and the compiler's do."""
    inside = {match["name"]: match for match in map(_INSTRUCTION.match, [*condition, *body]) if match}

    def constant(name: str) -> int | None:
        if name not in inside or inside[name]["op"] != "constant" or not inside[name]["operands"].isdecimal():
            return None
        return int(inside[name]["operands"])

    try:
        pairs = (re.findall(_NAME, match["operands"]) for match in inside.values() if "direction=LT" in match["rest"])
        ((counter, bound),) = (pair for pair in pairs if constant(pair[1]) is not None)  # others are of a search's body
        index = re.search(r"index=(\d+)", inside[counter]["rest"])
        (root,) = (match for match in inside.values() if match["root"] and match["op"] == "tuple")
        following = inside[re.findall(_NAME, root["operands"])[int(index[1] if index else "")]]
        steps = [value for name in re.findall(_NAME, following["operands"]) if (value := constant(name)) is not None]
        end = constant(bound)
        if following["op"] != "add" or len(steps) != 1 or end is None:
            raise ValueError
    except (KeyError, IndexError, ValueError):
        raise ValueError(f"cannot read a loop's length from its condition: {' '.join(condition)[:300]}") from None
    return -(-end // steps[0])


def _sent(kind: str, start: bool, result: str, group: int) -> float:
    """Bytes that a device sends: those of ring algorithms, which are the least possible."""
    arrays = [_bytes(match) for match in _ARRAY.finditer(result)]
    size = sum(arrays)  # gathers and scatters that are only started also list what goes in
    share = (group - 1) / group
    if kind == "collective-permute":
        return arrays[0]
    if kind == "all-gather":
        return (size * group / (group + 1) if start else size) * share
    if kind == "all-reduce":
        return 2 * size * share
    if kind == "reduce-scatter":
        return size * (group - 1) / (group + 1 if start else 1)
    return size * share


def _bytes(array: re.Match[str]) -> float:
    bits = 8 if array["type"] == "pred" or array["type"].startswith("f8") else int(re.sub(r"\D", "", array["type"]))
    return math.prod(int(side) for side in array["shape"].split(",") if side) * bits / 8


def _group_size(line: str) -> int:
    """Devices that take part in one group of a collective operation."""
    if match := re.search(r"replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return match[1].count(",") + 1
    if "source_target_pairs" in line:
        return 2
    raise ValueError(f"cannot read the groups of a collective operation: {line.strip()[:300]}")
