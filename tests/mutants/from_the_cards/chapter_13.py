"""Chapter 13."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 13.1
MIS = '''
import torch
def mismatch(logprobs, old_logprobs, mask):
    new, old = logprobs.detach()[mask].double(), old_logprobs.detach()[mask].double()
    p, q = new.exp(), old.exp()
    dp = (p - q).abs()
    x, y = p - p.mean(), q - q.mean()
    if (p == p[0]).all() or (q == q[0]).all():
        pearson = float("nan")
    else:
        pearson = ((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()).item()
    return {"pearson": pearson, "mean_dp": dp.mean().item(), "max_dp": dp.max().item(), "mean_dlogp": (new - old).abs().mean().item()}
'''
SEL, EXP, DP = "new, old = logprobs.detach()[mask].double(), old_logprobs.detach()[mask].double()", "p, q = new.exp(), old.exp()", "dp = (p - q).abs()"
IF, R = "if (p == p[0]).all() or (q == q[0]).all():", "((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()).item()"
fam("13.1", MIS, [
    ("base", "right"),
    ("double_first", "right", SEL, "new, old = logprobs.detach().to(torch.float64)[mask], old_logprobs.detach().to(torch.float64)[mask]"),
    ("min_max", "right", IF, "if p.min() == p.max() or q.min() == q.max():"),
    ("unique", "right", IF, "if min(len(p.unique()), len(q.unique())) == 1:"),
    ("corrcoef", "right", R, "torch.corrcoef(torch.stack([p, q]))[0, 1].item()"),
    ("two_roots", "right", R, "(x @ y / x.norm() / y.norm()).item()"),
    ("exp_fp32_then_double", "wrong", EXP, "p, q = new.float().exp().double(), old.float().exp().double()"),
    ("exp_in_own_dtype", "wrong", EXP, "p, q = logprobs.detach()[mask].exp().double(), old_logprobs.detach()[mask].exp().double()"),
    ("difference_in_own_dtype", "wrong", "(new - old).abs().mean()", "(logprobs - old_logprobs)[mask].detach().double().abs().mean()"),
    ("mean_dlogp_fp32", "wrong", "(new - old).abs().mean()", "(new - old).abs().float().mean()"),
    ("mask_times", "wrong", SEL, "new, old = (logprobs.detach() * mask).double().flatten(), (old_logprobs.detach() * mask).double().flatten()"),
    ("zeros_counted", "wrong", SEL, "new, old = logprobs.detach().masked_fill(~mask, 0).double().flatten(), old_logprobs.detach().masked_fill(~mask, 0).double().flatten()"),
    ("means_over_all", "wrong", "dp.mean()", "dp.sum().div(mask.numel())"),
    ("first_row", "wrong", SEL, "logprobs, old_logprobs, mask = logprobs[:1], old_logprobs[:1], mask[:1]; " + SEL),
    ("pearson_of_logs", "wrong", "x, y = p - p.mean(), q - q.mean()", "x, y = new - new.mean(), old - old.mean()"),
    ("cosine", "wrong", "x, y = p - p.mean(), q - q.mean()", "x, y = p, q"),
    ("pearson_abs", "wrong", R, "abs" + R),
    ("sample_covariance", "wrong", R, "((x * y).sum() / max(len(x) - 1, 1) / (x.std(correction=0) * y.std(correction=0))).item()"),
    ("per_row_pearson", "wrong", IF, IF.replace("if ", "if len(mask) > 1 and mask.any(1).all(): x = torch.cat([r.detach()[m].double().exp() - r.detach()[m].double().exp().mean() for r, m in zip(logprobs, mask)]); y = torch.cat([r.detach()[m].double().exp() - r.detach()[m].double().exp().mean() for r, m in zip(old_logprobs, mask)])\n    if ")),
    ("dp_signed_max", "wrong", "dp.max()", "(p - q).max()"),
    ("dp_relative", "wrong", DP, "dp = (p / q - 1).abs()"),
    ("mean_dlogp_abs_of_mean", "wrong", "(new - old).abs().mean()", "(new - old).mean().abs()"),
    ("variance_zero", "wrong", IF, "if x.square().sum() == 0 or y.square().sum() == 0:"),
    ("variance_tiny", "wrong", IF, "if x.square().sum() < 1e-12 or y.square().sum() < 1e-12:"),
    ("allclose", "wrong", IF, "if torch.allclose(p, p[:1].expand_as(p)) or torch.allclose(q, q[:1].expand_as(q)):"),
    ("both_equal", "wrong", "all() or", "all() and"),
    ("new_side_only", "wrong", " or (q == q[0]).all()", ""),
    ("old_side_only", "wrong", "(p == p[0]).all() or ", ""),
    ("one_token_only", "wrong", IF, "if len(p) == 1:"),
    ("zero_for_undefined", "wrong", 'float("nan")', "0.0"),
    ("none_for_undefined", "wrong", 'float("nan")', "None"),
    ("all_nan_for_undefined", "wrong", 'float("nan")', 'float("nan"); dp = dp * pearson'),
    ("tensors", "wrong", "dp.mean().item()", "dp.mean()", "dp.max().item()", "dp.max()"),
    ("clamped_logs", "wrong", EXP, EXP + "; new, old = new.clamp(min=-10), old.clamp(min=-10)"),
    ("in_place", "wrong", SEL, "old_logprobs.data.masked_fill_(~mask, 0); " + SEL),
    ("first_call_kept", "wrong", "def mis", "SEEN = {}\ndef mis", EXP, "p, q = new.exp(), SEEN.setdefault(len(new), old.exp())"),
])
add("13.1", "loop", "right", '''
import math
def mismatch(logprobs, old_logprobs, mask):
    pairs = [(logprobs[b, t].item(), old_logprobs[b, t].item()) for b, t in mask.nonzero().tolist()]
    p, q = [math.exp(a) for a, _ in pairs], [math.exp(b) for _, b in pairs]
    n = len(pairs)
    mp, mq = math.fsum(p) / n, math.fsum(q) / n
    sxy = math.fsum((a - mp) * (b - mq) for a, b in zip(p, q))
    sx, sy = math.fsum((a - mp) ** 2 for a in p), math.fsum((b - mq) ** 2 for b in q)
    defined = len(set(p)) > 1 and len(set(q)) > 1
    dp = [abs(a - b) for a, b in zip(p, q)]
    return {"mean_dlogp": sum(abs(a - b) for a, b in pairs) / n, "max_dp": max(dp), "mean_dp": sum(dp) / n,
            "pearson": sxy / math.sqrt(sx * sy) if defined else math.nan}
''')
add("13.1", "numpy", "right", '''
import numpy as np
import torch
def mismatch(logprobs, old_logprobs, mask):
    with torch.no_grad():
        a, b = (torch.masked_select(v, mask).to(torch.float64).numpy() for v in (logprobs, old_logprobs))
    p, q = np.exp(a), np.exp(b)
    r = np.nan if np.ptp(p) == 0 or np.ptp(q) == 0 else np.corrcoef(p, q)[0, 1]
    return dict(pearson=float(r), mean_dp=float(np.abs(p - q).mean()), max_dp=float(np.abs(p - q).max()), mean_dlogp=float(np.abs(a - b).mean()))
''')

# ------------------------------------------------------------ 13.2
STOP = '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    above = (probabilities > threshold).tolist()
    stops = []
    for row, length in zip(above, lengths.tolist()):
        run = 0
        stop = length
        for t in range(length):
            run = run + 1 if row[t] else 0
            if run == window:
                stop = t + 1
                break
        stops.append(stop)
    return torch.tensor(stops, dtype=torch.int64)
'''
RUN, IF, RET = "run = run + 1 if row[t] else 0", "if run == window:", "return torch.tensor(stops, dtype=torch.int64)"
fam("13.2", STOP, [
    ("base", "right"),
    ("at_least", "right", IF, "if run >= window:"),
    ("last_low_token", "right", "run = 0", "last = -1", RUN, "last = last if row[t] else t", IF, "if t - last == window:"),
    ("all_of_slice", "right", RUN, "run = window if t + 1 >= window and all(row[t + 1 - window:t + 1]) else 0"),
    ("gather_rows", "right", RET, "return torch.as_tensor(stops).long()"),
    ("greater_equal", "wrong", "probabilities > threshold", "probabilities >= threshold"),
    ("without_last", "wrong", "stop = t + 1", "stop = t"),
    ("before_window", "wrong", "stop = t + 1", "stop = t + 1 - window"),
    ("one_after", "wrong", "stop = t + 1", "stop = min(t + 2, length)"),
    ("window_plus_1", "wrong", IF, "if run > window:"),
    ("window_minus_1", "wrong", IF, "if run == max(window - 1, 1):"),
    ("not_consecutive", "wrong", " else 0", " else run"),
    ("restart_at_1", "wrong", " else 0", " else 1"),
    ("last_window", "wrong", "                break\n", "                run = 0\n"),
    ("last_end", "wrong", "                break\n", "", IF, "if run >= window:"),
    ("padding_counts", "wrong", "for t in range(length)", "for t in range(len(row))"),
    ("padding_counts_clamped", "right", "for t in range(length)", "for t in range(len(row))", "stop = t + 1", "stop = min(t, length - 1) + 1"),
    ("never_is_T", "wrong", "stop = length", "stop = len(row)"),
    ("never_is_window", "wrong", "stop = length", "stop = min(length, window)"),
    ("run_over_rows", "wrong", "        run = 0\n", "", "    stops = []", "    stops, run = [], 0"),
    ("length_minus_1", "right", "range(length)", "range(length - 1)"),
    ("first_token_ignored", "wrong", "range(length)", "range(1, length)"),
    ("at_least_1", "wrong", "stop = length", "stop = max(length, 1)"),
    ("threshold_0.99", "wrong", "> threshold", "> 0.99"),
    ("threshold_bf16", "wrong", "probabilities > threshold", "probabilities.bfloat16() > threshold"),
    ("threshold_tolerance", "wrong", "> threshold", "> threshold + 1e-3"),
    ("not_below", "wrong", "probabilities > threshold", "~(probabilities < threshold)"),
    ("window_clamped_to_T", "right", "    stops = []", "    stops, window = [], min(window, probabilities.shape[1])"),
    ("window_at_least_2", "wrong", "    stops = []", "    stops, window = [], max(window, 2)"),
    ("int32", "wrong", "dtype=torch.int64", "dtype=torch.int32"),
    ("in_place_padding", "wrong", "    above", "    probabilities.masked_fill_(torch.arange(probabilities.shape[1]) >= lengths[:, None], 0)\n    above"),
    ("window_mean", "wrong", "above = (probabilities > threshold).tolist()", "above = probabilities.tolist()", RUN, "run = window if t + 1 >= window and sum(row[t + 1 - window:t + 1]) / window > threshold else 0"),
    ("blocks", "wrong", IF, "if run >= window and (t + 1) % window == 0:"),
    ("row_length_0_raises", "wrong", "stop = length", "stop = range(1, length + 1)[-1]"),
    ("kept_state", "wrong", "def rep", "STOPS = {}\ndef rep", "stops.append(stop)", "stops.append(STOPS.setdefault((len(stops), length), stop))"),
])
add("13.2", "cumsum", "right", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    B, T = probabilities.shape
    t = torch.arange(1, T + 1)
    above = (probabilities > threshold) & (t <= lengths[:, None])
    total = above.long().cumsum(1)
    run = total - (total * ~above).cummax(1).values
    done = run >= window
    first = torch.where(done, t, torch.full_like(run, T + 1)).amin(1)
    return torch.minimum(first, lengths)
''')
add("13.2", "unfold", "right", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    T = probabilities.shape[1]
    stops = lengths.clone()
    if window > T:
        return stops
    inside = torch.arange(T)[None] < lengths[:, None]
    full = ((probabilities > threshold) & inside).unfold(1, window, 1).all(-1)
    found = full.any(1)
    stops[found] = full.int().argmax(1)[found] + window
    return stops
''')
add("13.2", "last_low_cummax", "right", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    B, T = probabilities.shape
    t = torch.arange(T).expand(B, T)
    low = ~(probabilities > threshold)
    since = t - torch.where(low, t, -1).cummax(1).values
    hit = (since == window) & (t < lengths.view(-1, 1))
    end = torch.where(hit, t + 1, T + window)
    return torch.cat([end, lengths[:, None]], dim=1).min(1).values
''')
add("13.2", "strings", "right", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    out = lengths.clone()
    for b in range(len(lengths)):
        row = probabilities[b, :int(lengths[b])] > threshold
        place = "".join("1" if x else "0" for x in row.tolist()).find("1" * window)
        if place != -1:
            out[b] = place + window
    return out
''')
add("13.2", "argmax_unguarded", "wrong", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    T = probabilities.shape[1]
    if window > T:
        return lengths.clone()
    inside = torch.arange(T)[None] < lengths[:, None]
    full = ((probabilities > threshold) & inside).unfold(1, window, 1).all(-1)
    return full.int().argmax(1) + window
''')
add("13.2", "unfold_unguarded", "wrong", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    inside = torch.arange(probabilities.shape[1])[None] < lengths[:, None]
    full = ((probabilities > threshold) & inside).unfold(1, window, 1).all(-1)
    return torch.where(full.any(1), full.int().argmax(1) + window, lengths)
''')
add("13.2", "nan_cumsum", "wrong", '''
import torch
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    T = probabilities.shape[1]
    above = (probabilities > threshold).float() * probabilities / probabilities
    sums = torch.cat([torch.zeros(len(above), 1), above.cumsum(1)], 1)
    out = lengths.clone()
    for b in range(len(out)):
        for t in range(window, int(lengths[b]) + 1):
            if not sums[b, t] - sums[b, t - window] < window - 0.5:
                out[b] = t
    return out
''')

# ------------------------------------------------------------ 13.3
GATE = '''
import math
import torch
def stage_gate(perplexities, lengths, window, *, patience=3, tolerance=0.02, closeness=0.9):
    change = math.inf
    if len(perplexities) >= 2 * patience:
        new = sum(perplexities[-patience:]) / patience
        old = sum(perplexities[-2 * patience:-patience]) / patience
        change = abs(new - old) / old
    p99 = torch.quantile(lengths.double(), 0.99).item()
    return change <= tolerance and p99 >= closeness * window, change, p99
'''
IF, NEW, OLD = "if len(perplexities) >= 2 * patience:", "perplexities[-patience:]", "perplexities[-2 * patience:-patience]"
CH, Q, RET = "abs(new - old) / old", "torch.quantile(lengths.double(), 0.99).item()", "return change <= tolerance and p99 >= closeness * window, change, p99"
fam("13.3", GATE, [
    ("base", "right"),
    ("last_2", "right", "        new =", "        perplexities = perplexities[-2 * patience:]\n        new =", OLD, "perplexities[:patience]", NEW, "perplexities[patience:]"),
    ("fmean", "right", "import math", "import math\nfrom statistics import fmean", "sum(" + NEW + ") / patience", "fmean(" + NEW + ")", "sum(" + OLD + ") / patience", "fmean(" + OLD + ")"),
    ("numpy_quantile", "right", "import torch", "import numpy as np", Q, "float(np.quantile(lengths.numpy(), 0.99))"),
    ("numpy_percentile", "right", "import torch", "import numpy", Q, "numpy.percentile(lengths.tolist(), 99).item()"),
    ("sorted_lerp", "right", Q, "0.0\n    ordered, place = sorted(lengths.tolist()), 0.99 * (len(lengths) - 1)\n    low = math.floor(place); high = math.ceil(place)\n    p99 = ordered[low] + (ordered[high] - ordered[low]) * (place - low)"),
    ("by_new", "wrong", CH, "abs(new - old) / new"),
    ("signed", "wrong", CH, "(new - old) / old"),
    ("rise_is_zero", "wrong", CH, "max(old - new, 0) / old"),
    ("absolute", "wrong", CH, "abs(new - old)"),
    ("log_ratio", "wrong", CH, "abs(math.log(new / old))"),
    ("last_two", "wrong", CH, "abs(perplexities[-1] - perplexities[-2]) / perplexities[-2]"),
    ("median", "wrong", "import math", "import math\nfrom statistics import median", "sum(" + NEW + ") / patience", "median(" + NEW + ")", "sum(" + OLD + ") / patience", "median(" + OLD + ")"),
    ("old_is_the_rest", "wrong", "sum(" + OLD + ") / patience", "sum(perplexities[:-patience]) / (len(perplexities) - patience)"),
    ("first_ones", "wrong", OLD, "perplexities[:patience]"),
    ("overlap", "wrong", OLD, "perplexities[-patience - 1:-1]"),
    ("more_than", "wrong", ">= 2 * patience:", "> 2 * patience:"),
    ("too_early", "wrong", IF, "if len(perplexities) >= patience + 1:", "sum(" + OLD + ") / patience", "sum(" + OLD + ") / len(" + OLD + ")"),
    ("zero_if_too_few", "wrong", "change = math.inf", "change = 0.0"),
    ("none_if_too_few", "wrong", RET, "return change <= tolerance and p99 >= closeness * window, None if change == math.inf else change, p99"),
    ("p99_skipped", "wrong", RET, "return (change <= tolerance and p99 >= closeness * window, change, p99) if change < math.inf else (False, change, 0.0)"),
    ("nearest", "wrong", "0.99)", "0.99, interpolation='nearest')"),
    ("max", "wrong", Q, "float(lengths.max())"),
    ("n_not_n_minus_1", "wrong", Q, "float(sorted(lengths.tolist())[min(int(0.99 * len(lengths)), len(lengths) - 1)])"),
    ("n_plus_1", "wrong", Q, "0.0\n    o, n = sorted(lengths.tolist()), len(lengths)\n    x = min(max(0.99 * (n + 1) - 1, 0), n - 1)\n    p99 = o[int(x)] + (o[min(int(x) + 1, n - 1)] - o[int(x)]) * (x - int(x))"),
    ("not_sorted", "wrong", Q, "0.0\n    o, x = lengths.tolist(), 0.99 * (len(lengths) - 1)\n    p99 = o[int(x)] + (o[min(int(x) + 1, len(o) - 1)] - o[int(x)]) * (x - int(x))"),
    ("p99_int", "wrong", Q, "int(" + Q + ")"),
    ("or", "wrong", "tolerance and", "tolerance or"),
    ("change_strict", "wrong", "change <=", "change <"),
    ("p99_strict", "wrong", "p99 >=", "p99 >"),
    ("closeness_0.9", "wrong", "closeness * window", "0.9 * window"),
    ("tolerance_0.02", "wrong", "change <= tolerance", "change <= 0.02"),
    ("tensor_p99", "wrong", Q, Q.replace(".item()", "")),
    ("share_near_the_window", "wrong", "p99 >= closeness * window", "(lengths >= closeness * window).double().mean().item() >= 0.01"),
    ("pops", "wrong", "        change =", "        del perplexities[:-2 * patience]\n        change ="),
    ("remembers", "wrong", "def stage", "SEEN = []\ndef stage", "    change = math.inf", "    change = math.inf\n    SEEN.extend(perplexities); perplexities = SEEN"),
])
add("13.3", "kth_values", "right", '''
import math
import torch
def stage_gate(perplexities, lengths, window, *, patience=3, tolerance=0.02, closeness=0.9):
    n = len(lengths)
    whole, hundredths = divmod(99 * (n - 1), 100)
    low = int(lengths.kthvalue(whole + 1).values)
    high = int(lengths.kthvalue(min(whole + 2, n)).values)
    p99 = low + (high - low) * hundredths / 100
    if len(perplexities) < 2 * patience:
        return False, math.inf, float(p99)
    blocks = torch.tensor(perplexities, dtype=torch.float64)[-2 * patience:].view(2, patience).mean(1)
    change = float((blocks[1] - blocks[0]).abs() / blocks[0])
    return bool(change <= tolerance and p99 >= closeness * window), change, float(p99)
''')
add("13.3", "numpy_all", "right", '''
import numpy as np
def stage_gate(perplexities, lengths, window, *, patience=3, tolerance=0.02, closeness=0.9):
    p = np.array(perplexities, dtype=np.float64)
    change = float("inf")
    if p.size // 2 >= patience:
        old, new = np.mean(p[p.size - 2 * patience:p.size - patience]), np.mean(p[p.size - patience:])
        change = float(np.abs(new - old) / old)
    ordered = np.sort(lengths.numpy())
    p99 = float(np.interp(0.99 * (len(ordered) - 1), np.arange(len(ordered)), ordered))
    return all([change <= tolerance, p99 >= closeness * window]), change, p99
''')

# ------------------------------------------------------------ 13.4
BIAS = '''
import torch
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    N = len(lengths)
    logs, share = lengths.double().log(), successes.double()
    i = torch.arange(window, dtype=torch.float64)
    i = i - i.mean()
    growth, gain = torch.zeros(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    alarm = torch.zeros(N, dtype=torch.bool)
    for t in range(window - 1, N):
        y, z = logs[t - window + 1:t + 1], share[t - window + 1:t + 1]
        growth[t] = (i * (y - y.mean())).sum() / i.square().sum()
        gain[t] = (i * (z - z.mean())).sum() / i.square().sum()
        alarm[t] = growth[t] > min_growth and gain[t] < max_gain
    return alarm, growth, gain
'''
LOG, FOR, YZ = "logs, share = lengths.double().log(), successes.double()", "for t in range(window - 1, N):", "y, z = logs[t - window + 1:t + 1], share[t - window + 1:t + 1]"
GR, GA, AL = "growth[t] = (i * (y - y.mean())).sum() / i.square().sum()", "gain[t] = (i * (z - z.mean())).sum() / i.square().sum()", "alarm[t] = growth[t] > min_growth and gain[t] < max_gain"
RET = "return alarm, growth, gain"
fam("13.4", BIAS, [
    ("base", "right"),
    ("no_mean_of_y", "right", GR, "growth[t] = torch.dot(i, y) / torch.dot(i, i)", GA, "gain[t] = torch.dot(i, z) / torch.dot(i, i)"),
    ("closed_denominator", "right", "(i * (y - y.mean())).sum() / i.square().sum()", "(i * (y - y.mean())).sum() * 12 / (window * (window ** 2 - 1))"),
    ("alarm_after", "right", "        " + AL + "\n", "", RET, "alarm[window - 1:] = ((growth > min_growth) & (gain < max_gain))[window - 1:]; " + RET),
    ("lstsq", "right", GR, "growth[t] = torch.linalg.lstsq(torch.stack([i, torch.ones_like(i)], 1), y[:, None]).solution[0, 0]"),
    ("pairs", "right", GA, "gain[t] = sum((b - a) * (z[b] - z[a]) for a in range(window) for b in range(a)) / sum((b - a) ** 2 for a in range(window) for b in range(a))"),
    ("no_log", "wrong", ".double().log()", ".double()"),
    ("log1p", "wrong", ".log()", ".log1p()"),
    ("log_fp32", "wrong", "lengths.double().log()", "lengths.float().log().double()"),
    ("own_dtype_out", "wrong", RET, "return alarm, growth.to(lengths.dtype), gain.to(successes.dtype)"),
    ("relative_growth", "wrong", GR, "y = lengths[t - window + 1:t + 1].double(); growth[t] = (i * (y - y.mean())).sum() / i.square().sum() / y.mean()"),
    ("endpoints", "wrong", GR, "growth[t] = (y[-1] - y[0]) / (window - 1)"),
    ("endpoints_gain", "wrong", GA, "gain[t] = (z[-1] - z[0]) / (window - 1)"),
    ("mean_step_over_window", "wrong", GA, "gain[t] = (z[-1] - z[0]) / window"),
    ("expm1", "wrong", GR, GR + "; growth[t] = growth[t].expm1()"),
    ("through_the_origin", "wrong", "    i = i - i.mean()\n", "", GR, "growth[t] = (i * y).sum() / i.square().sum()"),
    ("sample_variance", "wrong", GR, "growth[t] = (i * (y - y.mean())).mean() / i.var()"),
    ("window_plus_1_start", "wrong", FOR, "for t in range(window, N):"),
    ("starts_early", "wrong", FOR, "for t in range(1, N):", YZ, "y, z = logs[max(t - window + 1, 0):t + 1], share[max(t - window + 1, 0):t + 1]; i = torch.arange(len(y), dtype=torch.float64); i = i - i.mean()"),
    ("whole_past", "wrong", YZ, "y, z = logs[:t + 1], share[:t + 1]; i = torch.arange(len(y), dtype=torch.float64); i = i - i.mean()"),
    ("before_t", "wrong", FOR, "for t in range(window, N):", YZ, "y, z = logs[t - window:t], share[t - window:t]"),
    ("future", "wrong", FOR, "for t in range(N - window + 1):", YZ, "y, z = logs[t:t + window], share[t:t + window]"),
    ("centred_window", "wrong", FOR, "for t in range(window - 1, N - 1):", YZ, "y, z = logs[t - window + 2:t + 2], share[t - window + 2:t + 2]"),
    ("window_6", "wrong", "    N =", "    window = 6\n    N ="),
    ("all_mean", "wrong", GR, "growth[t] = ((i + 0.1) * (y - logs.mean())).sum() / i.square().sum()"),
    ("or", "wrong", "min_growth and", "min_growth or"),
    ("gain_not_positive", "wrong", "gain[t] < max_gain", "gain[t] <= 0"),
    ("abs_gain", "wrong", "gain[t] < max_gain", "abs(gain[t]) < max_gain"),
    ("abs_growth", "wrong", "growth[t] > min_growth", "abs(growth[t]) > min_growth"),
    ("thresholds_fixed", "wrong", AL, "alarm[t] = growth[t] > 0.02 and gain[t] < 0.01"),
    ("alarm_latches", "wrong", AL, AL + " or alarm[t - 1]"),
    ("alarm_before_window", "wrong", RET, "alarm = (growth > min_growth) & (gain < max_gain); " + RET),
    ("nan_before", "wrong", RET, "growth[:window - 1] = gain[:window - 1] = float('nan'); " + RET),
    ("clipped_window", "wrong", "    N = len(lengths)", "    N = len(lengths); window = min(window, N)"),
    ("in_place", "wrong", "lengths.double().log()", "lengths.log_().double()"),
    ("keeps_history", "wrong", "def length", "LOGS = []\ndef length", LOG, LOG + "; LOGS.append(logs); logs = LOGS[0] if len(LOGS[0]) == N else logs"),
])
add("13.4", "unfold", "right", '''
import torch
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    both = torch.stack([lengths.double().log(), successes.double()])
    slopes = torch.zeros_like(both)
    full = torch.arange(len(lengths)) >= window - 1
    if full.any():
        i = torch.arange(window).double() - (window - 1) / 2
        y = both.unfold(1, window, 1)
        slopes[:, window - 1:] = ((y - y.mean(-1, keepdim=True)) * i).sum(-1) / (i * i).sum()
    return (slopes[0] > min_growth) & (slopes[1] < max_gain) & full, slopes[0], slopes[1]
''')
add("13.4", "polyfit", "right", '''
import numpy as np
import torch
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    x, y = np.log(lengths.numpy().astype(np.float64)), successes.numpy().astype(np.float64)
    def slope(v, t):
        return float(np.polyfit(np.arange(window), v[t + 1 - window:t + 1], 1)[0]) if t >= window - 1 else 0.0
    growth, gain = ([slope(v, t) for t in range(len(x))] for v in (x, y))
    alarm = [t >= window - 1 and a > min_growth and b < max_gain for t, (a, b) in enumerate(zip(growth, gain))]
    return torch.tensor(alarm, dtype=torch.bool), torch.tensor(growth, dtype=torch.float64), torch.tensor(gain, dtype=torch.float64)
''')
add("13.4", "conv", "right", '''
import torch
import torch.nn.functional as F
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    kernel = torch.linspace(-(window - 1) / 2, (window - 1) / 2, window, dtype=torch.float64)
    kernel = kernel / kernel.pow(2).sum()
    N = len(lengths)
    def slope(y):
        out = y.new_zeros(N)
        if N >= window:
            out[window - 1:] = F.conv1d((y - y[0])[None, None], kernel[None, None])[0, 0]
        return out
    growth, gain = slope(torch.log(lengths.to(torch.float64))), slope(successes.to(torch.float64))
    alarm = (growth > min_growth).logical_and(gain < max_gain)
    alarm[:window - 1] = False
    return alarm, growth, gain
''')
