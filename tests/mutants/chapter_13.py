"""Wrong solutions of chapter 13's exercises: mismatch, repetition stop, stage gate, length-bias detector."""

from tests.mutants import Mutant

CHOSEN = "x, y = logprobs.detach()[mask].double(), old_logprobs.detach()[mask].double()"
CONSTANT = "(p == p[0]).all() or (p_old == p_old[0]).all()"
PEARSON = "((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).item()"
MEAN_DLOGP = "(x - y).abs().mean().item()}"
SURE = "(probabilities[:, t] > threshold) & (t < lengths)"
RUN = "run = torch.where(sure, run + 1, 0)"
KEPT = "torch.where(run >= window, kept.clamp(max=t + 1), kept)"
COUNTED = '''
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    kept = lengths.clone()
    for row, length in enumerate(lengths.tolist()):
        run = 0
        for t in range(length):
            run = run + 1 if probabilities[row, t] > threshold else 0
            if run == window:
                kept[row] = t + 1
                break
    return kept
'''
P99 = "torch.quantile(lengths.double(), 0.99).item()"
OLD = "sum(perplexities[-2 * patience : -patience]) / patience"
CHANGE = "abs(new - old) / old"
DECIDE = "change <= tolerance and p99 >= closeness * window"
GROWTH = "(i * lengths[recent].double().log()).sum() / i.square().sum()"
GAIN = "(i * successes[recent].double()).sum() / i.square().sum()"
ALARM = "(growth > min_growth) & (gain < max_gain)"
RECENT = "slice(t - window + 1, t + 1)"
FULL = "    alarm[: window - 1] = False\n"

MUTANTS = {
    "13.1": [
        Mutant("padding counts", CHOSEN,
               "x, y = logprobs.detach().double().flatten(), old_logprobs.detach().double().flatten()"),
        Mutant("padding as zeros of logprobs", CHOSEN,
               "x, y = ((z.detach() * mask).double().flatten() for z in (logprobs, old_logprobs))"),
        Mutant("padding counts in the largest", "gap.max()",
               "(logprobs.double().exp() - old_logprobs.double().exp()).abs().max()"),
        Mutant("mean over B * T", "gap.mean()", "(gap.sum() / mask.numel())"),
        Mutant("mean of dlogp over B * T", MEAN_DLOGP, "((x - y).abs().sum() / mask.numel()).item()}"),
        Mutant("signed mean_dp", "gap.mean()", "(p - p_old).mean()"),
        Mutant("signed largest", "gap.max()", "(p - p_old).max()"),
        Mutant("signed dlogp", MEAN_DLOGP, "(x - y).mean().item()}"),
        Mutant("abs after the mean", MEAN_DLOGP, "(x - y).mean().abs().item()}"),
        Mutant("exponential in fp32", CHOSEN,
               "x, y = logprobs.detach()[mask].float(), old_logprobs.detach()[mask].float()"),
        Mutant("exponential before the conversion", "p, p_old = x.exp(), y.exp()",
               "p, p_old = logprobs.detach()[mask].exp().double(), old_logprobs.detach()[mask].exp().double()"),
        Mutant("correlation of logprobs", "a, b = p - p.mean(), p_old - p_old.mean()",
               "a, b = x - x.mean(), y - y.mean()"),
        Mutant("not centred", "a, b = p - p.mean(), p_old - p_old.mean()", "a, b = p, p_old"),
        Mutant("r squared", PEARSON, "((a * b).sum() ** 2 / (a.square().sum() * b.square().sum())).item()"),
        Mutant("absolute r", PEARSON, "((a * b).sum().abs() / (a.square().sum() * b.square().sum()).sqrt()).item()"),
        Mutant("covariance", PEARSON, "(a * b).mean().item()"),
        Mutant("n and n - 1", PEARSON, "((a * b).mean() / (p.std() * p_old.std())).item()"),
        Mutant("no root", PEARSON, "((a * b).sum() / (a.square().sum() * b.square().sum())).item()"),
        Mutant("slope", PEARSON, "((a * b).sum() / b.square().sum()).item()"),
        Mutant("constant gives 0", 'float("nan")', "0.0"),
        Mutant("constant gives 1", 'float("nan")', "1.0"),
        Mutant("no look at constants", CONSTANT, "False"),
        Mutant("only one side looked at", CONSTANT, "(p == p[0]).all()"),
        Mutant("variance of zero", CONSTANT, "p.var(unbiased=False) == 0 or p_old.var(unbiased=False) == 0"),
        Mutant("constant only when alone", CONSTANT, "len(p) == 1"),
        Mutant("tensors instead of floats", "gap.mean().item()", "gap.mean()"),
        Mutant("probabilities and logprobs exchanged", MEAN_DLOGP, "gap.mean().item()}"),
        Mutant("key renamed", '"mean_dlogp":', '"dlogp":'),
        Mutant("root mean square", "gap.mean()", "gap.square().mean().sqrt()"),
        Mutant("relative", "gap = (p - p_old).abs()", "gap = (p - p_old).abs() / p_old"),
        Mutant("no detach, numpy", "logprobs.detach()[mask].double(), old",
               "torch.from_numpy(logprobs.numpy())[mask].double(), old"),
        Mutant("mean of the rows", "gap.mean().item()",
               "sum((logprobs.detach()[r][mask[r]].double().exp() - old_logprobs[r][mask[r]].double().exp()).abs()"
               ".mean() "
               "for r in range(len(mask))).item() / len(mask)"),
    ],
    "13.2": [
        Mutant("at least the threshold", SURE, SURE.replace(">", ">=")),
        Mutant("never starts again", RUN, "run = run + sure.long()"),
        Mutant("padding counts", source=COUNTED.replace("range(length)", "range(probabilities.shape[1])")),
        Mutant("rows as long as T", "t < lengths", "t >= 0",
               argued="what is kept never exceeds the row's length anyway"),
        Mutant("one token of the row left out", source=COUNTED.replace("range(length)", "range(length - 2)")),
        Mutant("counts from the end", source=COUNTED.replace("range(length)", "reversed(range(length))")),
        Mutant("one token late", "run >= window", "run > window"),
        Mutant("one token early", "run >= window", "run >= window - 1"),
        Mutant("index instead of number", "max=t + 1", "max=t"),
        Mutant("where the window begins", "max=t + 1", "max=t + 1 - window"),
        Mutant("last window", KEPT, "torch.where(run >= window, t + 1, kept)"),
        Mutant("last time that it is completed", KEPT, "torch.where(run == window, t + 1, kept)"),
        Mutant("T for rows never stopped", "kept = lengths.clone()",
               "kept = torch.full_like(lengths, probabilities.shape[1])"),
        Mutant("0 for rows never stopped", "return kept", "return torch.where(kept < lengths, kept, 0)"),
        Mutant("threshold fixed", SURE, SURE.replace("threshold", "0.99")),
        Mutant("window fixed", "run >= window", "run >= 3000"),
        Mutant("other default window", "window=3000", "window=300", ),
        Mutant("other default threshold", "threshold=0.99", "threshold=0.9"),
        Mutant("int32", "return kept", "return kept.int()"),
        Mutant("a list", "return kept", "return kept.tolist()"),
        Mutant("in place on lengths", KEPT, "lengths.copy_(torch.where(run >= window, kept.clamp(max=t + 1), kept))"),
        Mutant("all rows together", "run >= window", "(run >= window).any()"),
        Mutant("below the threshold", SURE, SURE.replace(">", "<", 1)),
        Mutant("first row's length for all", "(t < lengths)", "(t < lengths[0])"),
        Mutant("starts at token 1", "range(probabilities.shape[1])", "range(1, probabilities.shape[1])"),
        Mutant("mean of the window", source='''
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    kept = lengths.clone()
    for row, length in enumerate(lengths.tolist()):
        for t in range(window, length + 1):
            if probabilities[row, t - window : t].mean() > threshold:
                kept[row] = t
                break
    return kept
'''),
        Mutant("unfold without a look at T", source='''
def repetition_stop(probabilities, lengths, *, window=3000, threshold=0.99):
    full = (probabilities.unfold(1, window, 1) > threshold).all(-1)
    first = full.long().argmax(1) + window
    return torch.where(full.any(1), torch.minimum(first, lengths), lengths)
'''),
    ],
    "13.3": [
        Mutant("signed change", CHANGE, "(new - old) / old"),
        Mutant("signed the other way", CHANGE, "(old - new) / old"),
        Mutant("relative to the newer", CHANGE, "abs(new - old) / new"),
        Mutant("not relative", CHANGE, "abs(new - old)"),
        Mutant("or instead of and", DECIDE, "change <= tolerance or p99 >= closeness * window"),
        Mutant("perplexity alone", DECIDE, "change <= tolerance"),
        Mutant("length alone", DECIDE, "p99 >= closeness * window"),
        Mutant("tolerance excluded", "change <= tolerance", "change < tolerance"),
        Mutant("closeness excluded", "p99 >= closeness", "p99 > closeness"),
        Mutant("window itself must be reached", "closeness * window", "window"),
        Mutant("closeness fixed", "closeness * window", "0.9 * window"),
        Mutant("tolerance fixed", "<= tolerance", "<= 0.02"),
        Mutant("far from the window", "p99 >= closeness", "p99 <= closeness"),
        Mutant("longest output", P99, "lengths.max().double().item()"),
        Mutant("mean length", P99, "lengths.double().mean().item()"),
        Mutant("90th percentile", "0.99)", "0.9)"),
        Mutant("1st percentile", "0.99)", "0.01)"),
        Mutant("lower neighbour", "0.99)", '0.99, interpolation="lower")'),
        Mutant("nearest neighbour", "0.99)", '0.99, interpolation="nearest")'),
        Mutant("midpoint", "0.99)", '0.99, interpolation="midpoint")'),
        Mutant("higher neighbour", "0.99)", '0.99, interpolation="higher")'),
        Mutant("int(0.99 R), sorted", P99, "float(sorted(lengths.tolist())[int(0.99 * len(lengths))])"),
        Mutant("int64 quantile", "lengths.double()", "lengths"),
        Mutant("too few: 0", "return False, math.inf, p99", "return False, 0.0, p99"),
        Mutant("too few: 0 percentile", "return False, math.inf, p99", "return False, math.inf, 0.0"),
        Mutant("too few: moves on", "return False, math.inf, p99", "return p99 >= closeness * window, math.inf, p99"),
        Mutant("patience is enough", "< 2 * patience", "< patience"),
        Mutant("one too many asked for", "< 2 * patience", "<= 2 * patience"),
        Mutant("all the older ones", OLD, "sum(perplexities[:-patience]) / len(perplexities[:-patience])"),
        Mutant("the first ones", OLD, "sum(perplexities[:patience]) / patience"),
        Mutant("overlapping means", OLD, "sum(perplexities[-patience - 1 : -1]) / patience"),
        Mutant("single values", "new = sum(perplexities[-patience:]) / patience", "new = perplexities[-1]"),
        Mutant("spread", CHANGE, "(max(perplexities[-patience:]) - min(perplexities[-patience:])) / old"),
        Mutant("tensor instead of bool", "return change <=", "return torch.tensor(change) <="),
        Mutant("order of the results", "window, change, p99", "window, p99, change"),
        Mutant("drops old perplexities from the caller's list", P99, P99 + "\n    del perplexities[: -2 * patience]"),
        Mutant("other default patience", "patience=3", "patience=2"),
        Mutant("other default tolerance", "tolerance=0.02", "tolerance=0.05"),
        Mutant("other default closeness", "closeness=0.9", "closeness=0.99"),
        Mutant("default patience always", "< 2 * patience", "< 6"),
    ],
    "13.4": [
        Mutant("length without logarithm", ".double().log()", ".double()"),
        Mutant("log2", ".double().log()", ".double().log2()"),
        Mutant("log10", ".double().log()", ".double().log10()"),
        Mutant("log1p", ".double().log()", ".double().log1p()"),
        Mutant("log in fp32", ".double().log()", ".log().double()"),
        Mutant("relative to the mean", "growth[t] = " + GROWTH,
               "growth[t] = (i * lengths[recent].double()).sum() / i.square().sum() / lengths[recent].double().mean()"),
        Mutant("time not centred", "i = i - i.mean()\n", "\n"),
        Mutant("growth not divided", GROWTH, "(i * lengths[recent].double().log()).sum()"),
        Mutant("gain not divided", GAIN, "(i * successes[recent].double()).sum()"),
        Mutant("divided by window", GROWTH, "(i * lengths[recent].double().log()).sum() / window"),
        Mutant("last minus first", GAIN, "successes[recent][-1].double() - successes[recent][0].double()"),
        Mutant("mean of the steps", GAIN, "successes[recent].double().diff().mean()"),
        Mutant("sign", "i = i - i.mean()", "i = i.mean() - i"),
        Mutant("either", ALARM, "(growth > min_growth) | (gain < max_gain)"),
        Mutant("length alone", ALARM, "growth > min_growth"),
        Mutant("success alone", ALARM, "gain < max_gain"),
        Mutant("rings when success grows", "gain < max_gain", "gain > max_gain"),
        Mutant("min_growth unused", "growth > min_growth", "growth > 0"),
        Mutant("max_gain unused", "gain < max_gain", "gain <= 0"),
        Mutant("thresholds exchanged", ALARM, "(growth > max_gain) & (gain < min_growth)"),
        Mutant("growth may be equal", "growth > min_growth", "growth >= min_growth"),
        Mutant("gain may be equal", "gain < max_gain", "gain <= max_gain"),
        Mutant("early alarms", FULL, ""),
        Mutant("first full window silent", "alarm[: window - 1]", "alarm[:window]"),
        Mutant("newest batch left out", RECENT, "slice(t - window, t) if t >= window else slice(0, window)"),
        Mutant("window too long", RECENT, "slice(max(0, t - window), t)"),
        Mutant("starts one late", "range(window - 1, len(lengths))", "range(window, len(lengths))"),
        Mutant("whole history standardised", "recent =", "lengths = lengths / lengths.mean() + 0.01\n        recent ="),
        Mutant("results fp32", "dtype=torch.float64)\n    gain", "dtype=torch.float32)\n    gain"),
        Mutant("stays on", FULL, FULL + "    alarm = alarm.long().cummax(0).values.bool() if len(alarm) else alarm\n"),
        Mutant("order of the results", "return alarm, growth, gain", "return alarm, gain, growth"),
        Mutant("alarm as numbers", "return alarm, growth, gain", "return alarm.long(), growth, gain"),
        Mutant("only the last entry", "return alarm, growth, gain", "return alarm[-1], growth[-1], gain[-1]"),
        Mutant("looks ahead", source='''
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    i = torch.arange(window, dtype=torch.float64)
    i = i - i.mean()
    growth = torch.zeros(len(lengths), dtype=torch.float64)
    gain = torch.zeros_like(growth)
    for t in range(len(lengths) - window + 1):
        growth[t] = (i * lengths[t : t + window].double().log()).sum() / i.square().sum()
        gain[t] = (i * successes[t : t + window].double()).sum() / i.square().sum()
    return (growth > min_growth) & (gain < max_gain), growth, gain
'''),
        Mutant("shorter windows at the start", source='''
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    growth, gain = (torch.zeros(len(lengths), dtype=torch.float64) for _ in range(2))
    for t in range(1, len(lengths)):
        start = max(0, t - window + 1)
        i = torch.arange(t - start + 1, dtype=torch.float64)
        i = i - i.mean()
        growth[t] = (i * lengths[start : t + 1].double().log()).sum() / i.square().sum()
        gain[t] = (i * successes[start : t + 1].double()).sum() / i.square().sum()
    return (growth > min_growth) & (gain < max_gain), growth, gain
'''),
        Mutant("unfold without a look at N", source='''
def length_bias(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    i = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    slopes = [y.double().unfold(0, window, 1) @ i / (i @ i) for y in (lengths.double().log(), successes)]
    growth, gain = (torch.cat([torch.zeros(window - 1, dtype=torch.float64), y]) for y in slopes)
    alarm = (growth > min_growth) & (gain < max_gain)
    alarm[: window - 1] = False
    return alarm, growth, gain
'''),
        Mutant("default window always", "torch.arange(window, dtype", "torch.arange(6, dtype"),
        Mutant("other default window", "window=6", "window=5"),
        Mutant("other default growth", "min_growth=0.02", "min_growth=0.05"),
        Mutant("other default gain", "max_gain=0.01", "max_gain=0.05"),
    ],
}
