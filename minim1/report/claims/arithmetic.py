"""Claims that need no training: sizes, FLOPs, money, memory. Where nothing is drawn, a value is exact."""

from minim1.config import preset
from minim1.model.count import count
from minim1.report import cost, flops, memory
from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines, points

INDEX_BYTES = 912_210_767_872  # metadata.total_size of the released model.safetensors.index.json


def _parameters(results: Results) -> Finding:
    found = count(preset("m1-456b"))
    exact = (round(found["total_parameters"] / 1e9) == 456 and round(found["active_parameters"] / 1e8) == 459
             and found["checkpoint_bytes"] == INDEX_BYTES)
    return Finding(
        "exact" if exact else "partly",
        [Measured("parameters", [found["total_parameters"]], "{:,}"),
         Measured("multiplied for each token, embedding and head left out", [found["active_parameters"]], "{:,}"),
         Measured("bytes of the checkpoint", [found["checkpoint_bytes"]], "{:,}")],
        "The formula over config.json gives the published total and, if neither embedding nor head counts (no source says "
        "how it is counted), the active parameters; bf16 with fp32 routers gives the released checkpoint to the byte.",
    )


def _parameter_groups(results: Results):
    groups = count(preset("m1-456b"))["by_group"]
    return points({"parameters": {name: [size] for name, size in groups.items()}}, {"parameters": "expert"},
                  y="parameters", log=True)
