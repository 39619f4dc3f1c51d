"""Bytes to and from HBM in the text of a program, by hand."""

import pytest

from icre_jax.costs.traffic import hbm_traffic

TEXT = """
HloModule jit_step

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}

ENTRY %main (a: f32[1024], b: bf16[8,128]) -> f32[1024] {
  %a = f32[1024]{0:T(1024)} parameter(0)
  %b = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start.1 = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done.1 = f32[1024]{0:T(1024)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((bf16[8,128]{1,0}), bf16[2,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%b), slice={[0:2], [0:128]}
  %slice-done.1 = bf16[2,128]{1,0:S(1)} slice-done(%slice-start.1)
  %inside = f32[1024]{0:T(1024)S(1)} fusion(%copy-done.1), kind=kLoop, calls=%fused, metadata={op_name="x"}
  %reads = f32[1024]{0:T(1024)S(1)} fusion(%inside, %b), kind=kLoop, calls=%fused
  %seen = bf16[4,256]{1,0} bitcast(%b)
  %both = (f32[16]{0}, pred[32]{0:S(1)}) fusion(%reads, %seen), kind=kLoop, calls=%fused
  %out = (f32[1024]{0:T(1024)}, f32[1024]{0:T(1024)S(1)}, u32[]{:S(2)}) copy-start(%reads)
  ROOT %done = f32[1024]{0:T(1024)} copy-done(%out)
}
"""


def test_only_what_lies_in_hbm_is_counted():
    assert hbm_traffic(TEXT) == {
        "f32": 4096 + 64 + 4096,  # a is read, sixteen numbers and the result are written
        "bf16": 2 * 128 * 2 + 2 * (8 * 128 * 2),  # two of its rows, and twice the whole
    }


@pytest.mark.parametrize(
    ("array", "num_bytes"),
    [
        ("bf16[12,96,36,64]{3,2,1,0:T(8,128)(2,1)}", 12 * 96 * 40 * 128 * 2),  # 36 in eights, 64 in lanes of 128
        ("bf16[12,96,36,64]{1,3,2,0:T(8,128)(2,1)}", 12 * 128 * 36 * 64 * 2),  # the 96 lie in the lanes
        ("f32[713]{0:T(1024)}", 1024 * 4),
        ("f32[713]{0}", 713 * 4),
        ("f32[]{:T(128)}", 4),
    ],
)
def test_arrays_are_whole_tiles(array, num_bytes):
    text = f"ENTRY %main () -> f32[] {{\n  %x = {array} parameter(0)\n  %y = f32[]{{:S(1)}} fusion(%x), kind=kLoop\n}}"
    assert sum(hbm_traffic(text).values()) == num_bytes
