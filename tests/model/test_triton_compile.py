"""The Triton kernel compiles for an A100 (sm_80) and an H100 or H200 (sm_90), with everything in registers.

No GPU is needed: Triton's wheel brings ptxas and its tools. The compilations happen in another process, which runs
this file and tells Triton that such a GPU is there; each is exactly what a launch with these tensors would compile.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

SHARED = {80: 166912, 90: 232448}  # bytes of shared memory a program can have
PLAIN, PACKED, PLAIN_REVERSE, PACKED_REVERSE = "plain", "packed", "plain reverse", "packed reverse"
# (architecture, dtype, D, E, T, kind of run)
CASES = [
    (90, "bfloat16", 128, 128, 4096, PLAIN), (90, "bfloat16", 128, 128, 4096, PACKED),
    (90, "bfloat16", 128, 128, 4096, PLAIN_REVERSE), (90, "bfloat16", 128, 128, 4096, PACKED_REVERSE),
    (90, "float16", 128, 128, 4096, PLAIN_REVERSE), (90, "bfloat16", 80, 128, 32, PACKED),
    (90, "bfloat16", 64, 64, 4096, PLAIN), (90, "bfloat16", 64, 64, 4096, PACKED_REVERSE),
    (90, "float16", 48, 48, 4096, PLAIN_REVERSE), (90, "bfloat16", 16, 16, 4096, PLAIN_REVERSE),
    (90, "bfloat16", 128, 128, 1, PLAIN),
    (90, "float32", 128, 128, 4096, PLAIN), (90, "float32", 128, 128, 4096, PACKED_REVERSE),
    (90, "float32", 64, 64, 4096, PLAIN_REVERSE), (90, "float32", 16, 16, 1, PACKED),
    (80, "bfloat16", 128, 128, 4096, PLAIN), (80, "float16", 128, 128, 4096, PACKED_REVERSE),
    (80, "bfloat16", 64, 64, 4096, PLAIN_REVERSE), (80, "float16", 16, 16, 4096, PACKED),
    (80, "float32", 128, 128, 4096, PLAIN_REVERSE), (80, "float32", 64, 48, 4096, PACKED),
]


def compile_here(arch, dtype, dim, value_dim, length, kind):
    """What Triton makes of a run of the kernel on views of a fused projection, with states in and out."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    from minim1.model.triton_kernel import lightning_kernel
    from minim1.model.triton_lightning import choose_tiling, document_chunks, launch

    triton.runtime.driver.set_active(SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", arch, 32), get_current_device=lambda: arch,
        get_current_stream=lambda device: 0,
    ))
    fused = torch.empty(2, length, 4, 2 * dim + value_dim, dtype=getattr(torch, dtype))
    q, k, v = fused.split([dim, dim, value_dim], -1)
    tiling = choose_tiling(q, v, divmod(arch, 10))
    ids = torch.zeros(2, length, dtype=torch.long)
    chunks = document_chunks(ids, tiling.chunk) if "packed" in kind else [None] * 4
    state = torch.empty(2, 4, dim, value_dim)
    grid, arguments = launch(q, k, v, torch.empty(4), state, tiling, chunks, reverse="reverse" in kind)
    return lightning_kernel.warmup(grid=grid, **arguments)


def measure(compiled):
    """Registers, stack and shared memory of a compiled kernel, and which instructions it has."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([tool.path, option, file.name], check=True, capture_output=True, text=True).stdout
            for tool, option in ((knobs.nvidia.cuobjdump, "-res-usage"), (knobs.nvidia.nvdisasm, "-c"))
        )
    registers, stack = (int(number) for number in re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return {
        "registers": registers, "stack": stack, "spills": len(re.findall(r"\b(?:STL|LDL)\b", code)),
        "shared": compiled.metadata.shared,
        "tensor cores": [name for name in ("wgmma.mma_async", "mma.sync") if name in compiled.asm["ptx"]],
        "tf32": "tf32" in compiled.asm["ptx"],
        "prefetch": "cp.async" in compiled.asm["ptx"],  # loads into shared memory that nobody waits for
    }


def main():
    """Compile all cases; the measurements go to stdout as JSON."""
    found = []
    for case in CASES:
        found.append(measure(compile_here(*case)))
        print(*case, found[-1], file=sys.stderr)
    other = [compile_here(90, "bfloat16", 16, 16, length, PLAIN_REVERSE).hash for length in (4096, 4095, 100)]
    print(json.dumps({"cases": found, "lengths": other}))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("at", range(len(CASES)), ids=lambda at: "-".join(map(str, CASES[at])))
def test_fits(compiled, at):
    """No spill to the stack, within shared memory; fp32 in full, other dtypes on tensor cores and with prefetch."""
    arch, dtype, *_, length, _ = CASES[at]
    found = compiled["cases"][at]
    assert found["stack"] == 0 and found["spills"] == 0 and found["registers"] <= 255, found
    assert 0 < found["shared"] <= SHARED[arch], found
    assert not found["tf32"] and found["prefetch"] == bool(found["tensor cores"]) == (dtype != "float32"), found
    if arch == 90 and length > 32 and dtype != "float32":
        assert "wgmma.mma_async" in found["tensor cores"], found


def test_one_compilation_serves_all_lengths(compiled):
    assert len(set(compiled["lengths"])) == 1


if __name__ == "__main__":
    main()
