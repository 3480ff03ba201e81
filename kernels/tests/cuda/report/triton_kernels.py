"""Triton kernels of the shapes that ours have, compiled without a GPU, for the comparison in docs/kernels.md.

Usage: triton_kernels.py FOLDER SM...    writes FOLDER/NAME-sm_SM.cubin and one line of FOLDER/resources.tsv for each:
name, architecture, registers, spilled bytes, shared bytes, threads.
"""

import pathlib
import re
import subprocess
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile


@triton.jit
def matmul(a, b, c, m, n, k, lda, ldb, A_ROWS: tl.constexpr, B_ROWS: tl.constexpr, BM: tl.constexpr,
           BN: tl.constexpr, BK: tl.constexpr):
    # A_ROWS: a is [m, k] in memory, else [k, m]. B_ROWS: b is [k, n], else [n, k].
    tile = tl.program_id(0)
    tiles_n = tl.cdiv(n, BN)
    rows = tile // tiles_n * BM + tl.arange(0, BM)
    columns = tile % tiles_n * BN + tl.arange(0, BN)
    step = tl.arange(0, BK)
    if A_ROWS:
        from_a = a + rows[:, None] * lda + step[None, :]
    else:
        from_a = a + rows[:, None] + step[None, :] * lda
    if B_ROWS:
        from_b = b + step[:, None] * ldb + columns[None, :]
    else:
        from_b = b + step[:, None] + columns[None, :] * ldb
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, k, BK):
        sums = tl.dot(tl.load(from_a), tl.load(from_b), sums, input_precision="ieee")
        from_a += BK if A_ROWS else BK * lda
        from_b += BK * ldb if B_ROWS else BK
    tl.store(c + rows[:, None] * n + columns[None, :], sums)


@triton.jit
def attention(q, k, v, o, m_out, l_out, seq, heads, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    # Causal, one head of one sequence and BM queries a program; rows of [seq, heads * D].
    first = tl.program_id(0) * BM
    head = tl.program_id(1) % heads
    sequence = tl.program_id(1) // heads
    pitch = heads * D
    base = sequence * seq * pitch + head * D
    queries = first + tl.arange(0, BM)
    element = tl.arange(0, D)
    rows = tl.load(q + base + queries[:, None] * pitch + element[None, :])
    top = tl.full((BM,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    sums = tl.zeros((BM, D), dtype=tl.float32)
    for begin in range(0, first + BM, BN):
        keys = begin + tl.arange(0, BN)
        columns = tl.load(k + base + keys[None, :] * pitch + element[:, None])
        scores = tl.dot(rows, columns, input_precision="ieee") * scale
        scores = tl.where(keys[None, :] <= queries[:, None], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrunk = tl.exp2(top - higher)
        total = total * shrunk + tl.sum(weights, 1)
        values = tl.load(v + base + keys[:, None] * pitch + element[None, :])
        sums = tl.dot(weights, values, sums * shrunk[:, None], input_precision="ieee")
        top = higher
    tl.store(o + base + queries[:, None] * pitch + element[None, :], sums / total[:, None])
    tl.store(m_out + tl.program_id(1) * seq + queries, top)
    tl.store(l_out + tl.program_id(1) * seq + queries, total)


@triton.jit
def rms_norm(x, w, y, rstd, inv_d, eps, D: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, D)
    held = tl.load(x + row * D + at)
    r = 1.0 / tl.sqrt(tl.sum(held * held, 0) * inv_d + eps)
    tl.store(y + row * D + at, held * r * tl.load(w + at))
    tl.store(rstd + row, r)


@triton.jit
def adamw(p, m, v, g, n, b1, b2, b1c, b2c, c1, c2, eps, lr, decay, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    gradient = tl.load(g + at, mask=here)
    first = b1 * tl.load(m + at, mask=here) + b1c * gradient
    second = b2 * tl.load(v + at, mask=here) + b2c * gradient * gradient
    update = first * c1 / (tl.sqrt(second * c2) + eps)
    tl.store(m + at, first, mask=here)
    tl.store(v + at, second, mask=here)
    tl.store(p + at, tl.load(p + at, mask=here) * decay - lr * update, mask=here)


def kernels():
    """Name, function, constants, scalars that are floats, warps, stages."""
    tile = {"BM": 128, "BN": 128, "BK": 16}
    small = {"BM": 64, "BN": 64, "BK": 16}
    for name, a_rows, b_rows in [("nn", True, True), ("nt", True, False), ("tn", False, True)]:
        yield f"matmul_{name}_128", matmul, {**tile, "A_ROWS": a_rows, "B_ROWS": b_rows}, (), 8, 3
        yield f"matmul_{name}_64", matmul, {**small, "A_ROWS": a_rows, "B_ROWS": b_rows}, (), 2, 3
    # With four warps, as ours, both spill kilobytes; of tiles and warps that were tried, these spill least.
    yield "attention_forward_64", attention, {"D": 64, "BM": 64, "BN": 64}, ("scale",), 8, 1
    yield "attention_forward_128", attention, {"D": 128, "BM": 32, "BN": 32}, ("scale",), 8, 1
    yield "rms_norm_forward_held_32", rms_norm, {"D": 2048}, ("inv_d", "eps"), 8, 1
    scalars = ("b1", "b2", "b1c", "b2c", "c1", "c2", "eps", "lr", "decay")
    yield "adamw", adamw, {"BLOCK": 1024}, scalars, 8, 1


def build(function, constants, floats, warps, stages, sm):
    """The compiled kernel; pointers, and sizes and distances, are multiples of sixteen."""
    pointers = {"a", "b", "c", "q", "k", "v", "o", "m_out", "l_out", "x", "w", "y", "rstd", "p", "m", "g"}
    if function is matmul:
        pointers -= {"m", "k"}
    signature, aligned = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in floats:
            signature[name] = "fp32"
        else:
            signature[name] = "*fp32" if name in pointers else "i32"
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return compile(source, target=GPUTarget("cuda", sm, 32), options=options)


def resources(kernel, sm, ptx):
    """Registers and spilled bytes, by Triton's own assembler."""
    tools = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin"
    tool = tools / ("ptxas-blackwell" if sm >= 100 else "ptxas")
    ptx.write_text(kernel.asm["ptx"])
    suffix = "a" if sm >= 90 and re.search(r"\.target sm_\d+a", kernel.asm["ptx"]) else ""
    said = subprocess.run([tool, "-v", f"--gpu-name=sm_{sm}{suffix}", ptx, "-o", "/dev/null"], check=True,
                          capture_output=True, text=True).stderr
    return re.search(r"Used (\d+) registers", said)[1], re.search(r"(\d+) bytes spill stores", said)[1]


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, function, constants, floats, warps, stages in kernels():
        for sm in map(int, sys.argv[2:]):
            kernel = build(function, constants, floats, warps, stages, sm)
            file = folder / f"{name}-sm_{sm}.cubin"
            file.write_bytes(kernel.asm["cubin"])
            registers, spilled = resources(kernel, sm, file.with_suffix(".ptx"))
            row = [name, f"sm_{sm}", registers, spilled, str(kernel.metadata.shared), str(32 * warps)]
            lines.append("\t".join(row))
    (folder / "resources.tsv").write_text("\n".join(lines) + "\n")


main()
