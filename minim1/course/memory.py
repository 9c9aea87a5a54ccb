"""How much memory at once? `peak_bytes(call)`, for tensors on the CPU."""

from minim1.report.bench.peak import peak_bytes

__all__ = ["peak_bytes"]
