"""The linear layer with bfloat16 weights against float64, on every instruction set of this machine."""

import re
import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import using

from vllm_rast.kernels import build
from vllm_rast.kernels import select as kernels
from vllm_rast.kernels.linear import multiply_with_torch, wide_linear

# Up to 12 rows meet the weights as they come from memory, 4 or 8 at a time; more of them a block of 256 or 512 columns.
SHAPES = [(0, 8, 5), (1, 7, 1), (1, 896, 13), (2, 16, 12), (3, 31, 13), (3, 130, 25), (4, 33, 100), (5, 896, 259)]
SHAPES += [(7, 290, 37), (8, 513, 26), (13, 1030, 25)]
SHAPES += [(11, 513, 40), (13, 256, 25), (64, 100, 36), (257, 290, 37)]
# AMX takes tiles of 16 rows of either side, two of each at a time, and 32 columns.
SHAPES += [(16, 32, 16), (17, 64, 33), (33, 31, 47), (40, 95, 64)]


@pytest.fixture(params=["torch", *build.LINEAR_SETS, "amx"])
def implementation(request, monkeypatch):
    """wide_linear by one implementation, and by the best again afterwards."""
    if request.param == "torch":
        monkeypatch.setattr("vllm_rast.kernels.linear.native", lambda kind: False)
        yield
        return
    with using(request.param):
        yield


def operands(rows: int, depth: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + depth + width)
    x = torch.randn(rows, depth, generator=generator).bfloat16()
    weight = torch.randn(width, depth, generator=generator).bfloat16()
    return x, weight, torch.randn(width, generator=generator)


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias


def assert_close(got: torch.Tensor, wanted: torch.Tensor, depth: int) -> None:
    # Terms of size 1, summed in float32: an error of depth * 2^-24 at the very worst; a rounding to bfloat16 is 2^-8.
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=depth * 2**-22)


@pytest.mark.parametrize("rows, depth, width", SHAPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_sums_are_float32(implementation, rows, depth, width, with_bias):
    x, weight, bias = operands(rows, depth, width)
    got = wide_linear(x, weight, bias if with_bias else None)
    assert got.dtype == torch.float32 and got.shape == (rows, width)
    assert_close(got, exact(x, weight, bias if with_bias else None), depth)


@pytest.mark.parametrize("rows, depth, width", SHAPES)
def test_rounded_once_to_bfloat16(implementation, rows, depth, width):
    x, weight, bias = operands(rows, depth, width)
    rounded = wide_linear(x, weight, bias, rounds=True)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, wide_linear(x, weight, bias).bfloat16())


def test_rows_and_columns_of_larger_matrices(implementation):
    x, weight, _ = operands(5, 64, 40)
    part = wide_linear(x[1:4, 8:40], weight[3:30, 8:40])
    assert_close(part, exact(x[1:4, 8:40], weight[3:30, 8:40], None), 32)


def test_more_dimensions(implementation):
    x, weight, _ = operands(6, 16, 8)
    assert torch.equal(wide_linear(x.view(2, 3, 16), weight), wide_linear(x, weight).view(2, 3, 8))


def test_long_batches_are_cut(implementation):
    x, weight, _ = operands(600, 300, 26)  # chunks of 256 rows, blocks of 256 columns
    assert_close(wide_linear(x, weight), exact(x, weight, None), 300)


def test_infinities_and_nans(implementation):
    x, weight, _ = operands(3, 32, 15)
    weight[2, 5], weight[7, 0] = float("inf"), float("nan")
    x[1, 5] = 0.0
    got = wide_linear(x, weight, rounds=True)
    assert torch.isinf(got[0, 2]) and torch.isnan(got[1, 2]) and torch.isnan(got[:, 7]).all()
    others = [v for v in range(15) if v not in (2, 7)]
    assert torch.isfinite(got[:, others]).all()


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), depth=st.integers(1, 600), width=st.integers(1, 60))
def test_a_row_does_not_depend_on_its_batch(rows, depth, width):
    if kernels.choose("cpu").library is None:
        pytest.skip("torch's own product does depend on it")
    x, weight, bias = operands(rows, depth, width)
    together = wide_linear(x, weight, bias)
    for n in range(rows):
        assert torch.equal(wide_linear(x[n : n + 1], weight, bias)[0], together[n])


def test_the_number_of_threads_does_not_matter():
    if kernels.choose("cpu").library is None:
        pytest.skip("torch's own product may depend on it")
    x, weight, bias = operands(9, 896, 5000)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(wide_linear(x, weight, bias))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_what_does_not_fit_is_refused(implementation):
    x, weight, bias = operands(3, 16, 8)
    for wrong in (
        (x.float(), weight, None),
        (x, weight.float(), None),
        (x[:, :8], weight, None),
        (x, weight, bias[:7]),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            wide_linear(*wrong)


def test_operator_is_registered_completely():
    x, weight, bias = operands(3, 16, 8)
    torch.library.opcheck(torch.ops.vllm_rast.wide_linear.default, (x, weight, bias, True))
    torch.library.opcheck(torch.ops.vllm_rast.wide_linear.default, (x, weight, None, False))


def test_compiled(implementation):
    x, weight, bias = operands(4, 32, 24)
    compiled = torch.compile(lambda a: wide_linear(a, weight, bias) * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), wide_linear(x, weight, bias) * 2)


def test_multiplying_with_torch_is_the_same():
    x, weight, bias = operands(7, 64, 5000)
    assert_close(multiply_with_torch(x, weight, bias, False), exact(x, weight, bias), 64)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump: apt-get install binutils")
@pytest.mark.skipif(len(build.instruction_sets()) == 1, reason="the registers' names are those of x86-64")
def test_every_build_is_vectorised():
    """Every product of every build is summed in registers of that build's full width, fused where there is such."""
    choice = kernels.choose("cpu")
    if choice.library is None:
        pytest.skip(f"no library: {choice.reason}")
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(choice.library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    products = {"baseline": r"\bmulps\b.*%xmm", "avx2": r"\bvfmadd\w+ps\b.*%ymm", "avx512": r"\bvfmadd\w+ps\b.*%zmm"}
    products["avx512bf16"] = r"\bvdpbf16ps\b.*%zmm"
    found = dict.fromkeys(products, 0)
    for body in listing.split("\n\n"):
        function = re.match(
            r"\w+ <void vllm_rast::(\w+)::\(anonymous namespace\)::multiply_(tile|step)<(\d), (\w+)>", body
        )
        if function:
            name, loop, rows, streams = function.groups()
            factors = 1 if name == "avx512bf16" else 2
            products_in_loop = factors * int(rows) * int(streams) if loop == "step" else 12
            assert len(re.findall(products[name], body)) >= products_in_loop, f"{name}: multiply_{loop}<{rows}>"
            found[name] += 1
    # Steps of 1 to 4 rows (8 with AVX-512) with 3 streams, of 1 to 3 with 4; tiles of 1 to 3 rows (4 with AVX-512),
    # fresh or not.
    assert all(count >= 4 + 3 + 2 * 3 for count in found.values()), found
