"""How does a notebook use Triton on any machine? `triton` and `tl`, and `launch`, which runs a kernel where it can run.

    >>> from minim1.course.triton_here import launch, tl, triton            # doctest: +SKIP

On a GPU `launch` is the launch itself; on a CPU it is `safe_launch`, in Triton's interpreter. Where Triton cannot be
installed, `triton` and `tl` are stand-ins: kernels can be defined and read, and `launch` runs their twin in PyTorch.
"""

import itertools

from minim1.course.safe_kernel import KernelError, available, safe_launch

try:
    import triton
    import triton.language as tl
except ImportError:

    class _Language:
        """In the place of triton.language: every name is there, as type hints need it, and calling one says why not."""

        def __getattr__(self, name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return _Language()

        def __call__(self, *arguments, **options):
            raise KernelError(available())

    class _Triton:
        """In the place of triton: `jit` leaves a function as it is."""

        language = _Language()

        @staticmethod
        def jit(function=None, **options):
            return function if function is not None else lambda function: function

        @staticmethod
        def cdiv(x: int, y: int) -> int:
            return -(-x // y)

    triton, tl = _Triton(), _Triton.language


def launch(kernel, grid: tuple[int, ...], *args, instead=None, **meta) -> None:
    """Run `kernel[grid](*args, **meta)`: on the tensors' GPU, checked on a CPU, or, without Triton, its twin.

    Args: kernel, grid, args, meta as for `safe_launch`; instead: the twin, a function of PyTorch that does what one
        program does. instead(program, *args, **meta) is called for each; `program`, a tuple, is its place in the grid.
    Raises: KernelError as `safe_launch` does; without Triton if there is no twin.
    """
    if any(getattr(x, "is_cuda", False) for x in args):
        kernel[grid](*args, **meta)
    elif not available():
        safe_launch(kernel, grid, *args, **meta)
    elif instead is None:
        raise KernelError(available())
    else:
        print(f"(no Triton here: the twin of {kernel.__name__} ran, in PyTorch)")
        run_twin(instead, grid, *args, **meta)


def run_twin(twin, grid: tuple[int, ...], *args, **meta) -> None:
    """Call twin(program, *args, **meta) for every program of the grid, one after the other."""
    for program in itertools.product(*map(range, grid)):
        twin(program, *args, **meta)
