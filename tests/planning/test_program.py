"""What programs cost, on ones whose cost is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffcurr.planning import program


def flops(f, *shapes: tuple[int, ...]) -> float:
    return program.matmul_flops(jax.make_jaxpr(f)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_flops() -> None:
    """Products, convolutions, gradients, scans, branches, and what is recomputed."""
    product = 2 * 3 * 5 * 7
    assert flops(lambda a, b: a @ b, (3, 5), (5, 7)) == product
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7)) == 4 * product
    assert flops(jax.grad(lambda a, b: jnp.sum(jnp.tanh(a @ b)), (0, 1)), (3, 5), (5, 7)) == 3 * product
    assert flops(jax.jit(lambda a, b: a @ b), (3, 5), (5, 7)) == product

    jaxpr = jax.make_jaxpr(lambda a, b: (a @ b) + (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)))
    by_dtype = program.flops_by_dtype(jaxpr(jnp.zeros((3, 5)), jnp.zeros((5, 7))).jaxpr)
    assert by_dtype == {"float32": product, "bfloat16": product}

    def conv(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops(conv, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)

    def scanned(x, ws, remat):
        body = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(jax.checkpoint(body) if remat else body, x, ws)[0])

    layer = 2 * 3 * 5 * 5
    assert flops(lambda x, ws: scanned(x, ws, False), (3, 5), (6, 5, 5)) == 6 * layer
    gradient = jax.grad(scanned, argnums=(0, 1))
    assert flops(lambda x, ws: gradient(x, ws, False), (3, 5), (6, 5, 5)) == 6 * 3 * layer
    assert flops(lambda x, ws: gradient(x, ws, True), (3, 5), (6, 5, 5)) == 6 * 4 * layer

    def branches(x, a, b):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ a, lambda: (x @ a) @ b)

    assert flops(branches, (3, 5), (5, 5), (5, 5)) == 2 * layer


def test_traffic_of_a_compiled_program() -> None:
    """A loop of six gathers and a sum, over eight devices."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec(None, "d")), NamedSharding(mesh, PartitionSpec())

    def local(x, ws):
        def body(x, w):
            return jnp.tanh(x @ jax.lax.all_gather(w, "d", tiled=True)), None

        return jax.lax.psum(jnp.sum(jax.lax.scan(body, x, ws)[0]), "d")

    spec = PartitionSpec(None, "d")
    f = jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=PartitionSpec(), check_vma=False)
    x = jax.ShapeDtypeStruct((4, 16), jnp.float32, sharding=whole)
    ws = jax.ShapeDtypeStruct((6, 16, 16), jnp.float32, sharding=split)
    compiled = program.measure(jax.jit(f), x, ws)
    assert compiled.traffic["all-gather"] == (6, 6 * 16 * 16 * 4 * 7 / 8)
    assert compiled.traffic["all-reduce"] == (1, 2 * 4 * 7 / 8)
    assert set(compiled.traffic) == {"all-gather", "all-reduce"}
    assert compiled.argument_bytes == program.bytes_a_chip((x, ws)) == 4 * (4 * 16 + 6 * 16 * 2)


GROUPS = {
    "replica_groups={{0,1,2},{3,4,5}}": 3,
    "replica_groups=[2,8]<=[16]": 8,
    "replica_groups=mesh['a'=16,'b'=4] {'a'}": 16,
    "replica_groups=mesh['a'=16,'b'=4], device_ids=([16,4]T(1,0)) {'a','b'}": 64,
}


@pytest.mark.parametrize(("groups", "number"), GROUPS.items())
def test_traffic_as_the_compiler_writes_it(groups: str, number: int) -> None:
    """Kinds, groups, started operations, loops that count in twos, and one operation spread over several places."""
    text = f"""
%body (p: (f32[8], u32[])) -> (f32[8], u32[]) {{
  %p = (f32[8]{{0}}, u32[]) parameter(0)
  %two = u32[]{{:T(128)}} constant(2)
  %x = f32[8]{{0}} get-tuple-element(%p), index=0
  %i = u32[] get-tuple-element(%p), index=1
  %next = u32[]{{:T(128)}} add(%i, %two), metadata={{op_name="while"}}
  %moved = (f32[8]{{0}}, f32[8]{{0}}, u32[]) collective-permute-start(%x), channel_id=1, source_target_pairs={{{{0,1}}}}
  %done = f32[8]{{0}} collective-permute-done(%moved)
  %again = bf16[64]{{0}} all-gather(%x), channel_id=9, {groups}, dimensions={{0}}
  %other = pred[8]{{0}} compare(%x, %done), direction=LT
  %cheap = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%add, backend_config={{"estimated_cycles":"3"}}
  ROOT %out = (f32[8]{{0}}, u32[]) tuple(%done, %next)
}}
%condition (p.1: (f32[8], u32[])) -> pred[] {{
  %end = u32[]{{:T(128)}} constant(7)
  %p.1 = (f32[8]{{0}}, u32[]) parameter(0)
  %i.1 = u32[] get-tuple-element(%p.1), index=1
  ROOT %less = pred[]{{:T(512)}} compare(%i.1, %end), direction=LT
}}
%add (a: f32[], b: f32[]) -> f32[] {{
  ROOT %sum = f32[] add(f32[] %a, f32[] %b)
}}
%all-reduce-scatter.1 (y: f32[64]) -> f32[8] {{
  %y = f32[64]{{0}} parameter(0)
  %whole = f32[64]{{0}} all-reduce(%y), channel_id=5, {groups}, to_apply=%add
  ROOT %slice = f32[8]{{0}} dynamic-slice(%whole, %y), dynamic_slice_sizes={{8}}
}}
ENTRY %main (x.1: f32[8]) -> f32[8] {{
  %x.1 = f32[8]{{0}} parameter(0)
  %start = (f32[8]{{0}}, u32[]) tuple(%x.1)
  %loop = (f32[8]{{0}}, u32[]) while(%start), condition=%condition, body=%body
  %first = bf16[64]{{0}} all-gather(%x.1), channel_id=9, {groups}, dimensions={{0}}
  %costly = f32[8]{{0}} fusion(%x.1), kind=kLoop, calls=%add, backend_config={{"estimated_cycles":"100"}}
  %reduced = (f32[8]{{0}}, f32[2,3]{{1,0}}) all-reduce(%x.1, %x.1), channel_id=2, {groups}, to_apply=%add
  %scattered = f32[8]{{0}} reduce-scatter(%x.1), channel_id=3, {groups}, to_apply=%add
  %started = ((f32[{8 * number}]{{0}}), (f32[8]{{0}})) reduce-scatter-start(%x.1), channel_id=6, {groups}, to_apply=%add
  %fused = f32[8]{{0}} fusion(%x.1), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %exchanged = f32[8]{{0}} all-to-all(%x.1), channel_id=4, {groups}
}}
"""
    share = (number - 1) / number
    expected = {
        "collective-permute": (4, 4 * 32),  # ceil(7 / 2) times
        "all-gather": (1, 128 * share),  # as often as where it starts
        "all-reduce": (1, 2 * 56 * share),
        "reduce-scatter": (3, 2 * 32 * (number - 1) + 256 * share),
        "all-to-all": (1, 32 * share),
    }
    found = program.traffic(text)
    assert set(found) == set(expected)
    for kind, (operations, size) in expected.items():
        assert found[kind].operations == operations
        np.testing.assert_allclose(found[kind].bytes, size)
    assert program.estimated_cycles(text) == 100 + 4 * 3
    with pytest.raises(ValueError, match="cannot read a loop's length"):
        program.traffic(text.replace("direction=LT", "direction=NE"))
    with pytest.raises(ValueError, match="cannot read the groups"):
        program.traffic(text.replace("replica_groups", "groups"))
    with pytest.raises(ValueError, match="no entry"):
        program.traffic(text.replace("ENTRY ", ""))
