"""Makes PyTorch's CUDA wheel importable on a machine without CUDA, so that its CPU side can be compared with.

For every shared library or function that the loader misses, a stand-in is built into FOLDER. Its functions answer that there
is no device, which is what the CPU side asks before it goes on without. Put FOLDER into LD_LIBRARY_PATH afterwards.

usage: stand_ins.py SITE_PACKAGES FOLDER
"""

import os
import pathlib
import re
import subprocess
import sys

PATIENCE = 200
# cudaErrorNoDevice and CUDA_ERROR_NO_DEVICE.
NO_DEVICE = 100


def build(folder, library, functions):
    # Functions that begin with two underscores register kernels while a library is loaded: they may be called.
    # One reference to the C library gives the stand-in a table of versions, without which the loader gives up.
    source = "extern void abort(void);\nvoid stand_in(void) { abort(); }\n"
    for name in sorted(functions):
        source += f"unsigned long {name}(void) {{ return {0 if name.startswith('__') else NO_DEVICE}; }}\n"
    command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", "-x", "c", "-", "-o", str(folder / library)]
    subprocess.run(command, input=source, text=True, check=True)


def load(site, folder):
    """What the loader says to all of torch's libraries, resolving everything at once; empty if nothing is missing."""
    environment = dict(os.environ, LD_LIBRARY_PATH=str(folder), LD_BIND_NOW="1", PYTHONPATH=str(site))
    command = [sys.executable, "-c", "import torch; print('torch', torch.__version__)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else done.stderr or f"import torch ended with {done.returncode}"


def undefined(site):
    """Functions of CUDA's libraries that torch's libraries leave open."""
    opened, defined = set(), set()
    for library in (site / "torch" / "lib").glob("*.so*"):
        listed = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True)
        for kind, name in re.findall(r" ([A-Za-z]) (\w+)", listed.stdout):
            (opened if kind == "U" else defined).add(name)
    return {name for name in opened - defined if re.match(r"(__)?(cu|nccl|nvrtc|nvshmem|nvJit)", name)}


def main(site, folder):
    folder.mkdir(parents=True, exist_ok=True)
    first = None
    for _ in range(PATIENCE):
        said = load(site, folder)
        if not said:
            print("stand-ins:", ", ".join(sorted(path.name for path in folder.iterdir())) or "none needed")
            return 0
        missing = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file", said)
        if missing is None or (folder / missing[1]).exists():
            print(said.strip().splitlines()[-1])
            return 1
        # All functions live in the first; the others are empty.
        build(folder, missing[1], undefined(site) if first is None else ())
        first = first or missing[1]
    return 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()))
