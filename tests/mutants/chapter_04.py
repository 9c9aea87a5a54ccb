"""Wrong solutions of chapter 04's exercises: lightning attention in blocks."""

from tests.mutants import Mutant

EACH_DOCUMENT = "return each_document(q, k, v, slopes, state, document_ids)"
ONE_BY_ONE = "for number, at in enumerate(documents_of(document_ids[row])):"
START = "start = end if number == 0 else torch.zeros_like(end)"
UPDATE = "state = update_state(k_block, v_block, state, slopes)"
READ = "outs.append(intra_block(q_block, k_block, v_block, slopes) + inter_block(q_block, state, slopes))"

MUTANTS = {
    "4.1": [
        Mutant("no causal mask", ".tril()", ""),
        Mutant("no causal mask, decay in both directions", "torch.exp(-slopes[:, None, None] * distance).tril()",
               "torch.exp(-slopes[:, None, None] * (time[:, None] - time).abs())"),
        Mutant("a token does not see itself", ".tril()", ".tril(-1)"),
        Mutant("one later token is seen", ".tril()", ".tril(1)"),
        Mutant("triangle of the future", ".tril()", ".triu()"),
        Mutant("a mask that multiplies, no clamp: fast heads "
               "overflow", "torch.exp(-slopes[:, None, None] * distance).tril()",
               "torch.exp(-slopes[:, None, None] * (time[:, None] - time)) * (time[:, None] >= time)"),
        Mutant("clamped at 1: the diagonal decays", "clamp(min=0)", "clamp(min=1)"),
        Mutant("distance one too large", "(time[:, None] - time)", "(time[:, None] - time + 1)"),
        Mutant("sign of the exponent", "torch.exp(-slopes", "torch.exp(slopes"),
        Mutant("scaled by 1/sqrt(D)", "scores * weights, v)", "scores * weights / q.shape[-1] ** 0.5, v)"),
        Mutant("softmax", "scores * weights, v)", "(scores * weights).softmax(-1), v)"),
        Mutant("a denominator", "scores * weights, v)", "scores * weights / weights.sum(-1, keepdim=True), v)"),
        Mutant("no decay", "slopes[:, None, None] * distance", "0 * slopes[:, None, None] * distance"),
        Mutant("first head's slope for all", "slopes[:, None, None]", "slopes[:1, None, None]"),
        Mutant("heads in reverse", "slopes[:, None, None]", "slopes.flip(0)[:, None, None]"),
        Mutant("q and k exchanged", 'torch.einsum("bihd,bjhd->bhij", q, k)', 'torch.einsum("bihd,bjhd->bhij", k, q)'),
        Mutant("the batch is summed", '"bihd,bjhd->bhij", q, k', '"bihd,bjhd->bhij", q, k.mean(0, '
                                                                 'keepdim=True).expand_as(k)'),
        Mutant("detached scores", "scores * weights, v)", "scores.detach() * weights, v)"),
        Mutant("computed in half precision", "scores * weights, v)", "(scores * weights).bfloat16().to(v.dtype), v)"),
        Mutant("always float32", "scores * weights, v)", "scores * weights, v).float()"),
        Mutant("base 2 instead of e", "torch.exp(-slopes", "torch.exp2(-slopes"),
        Mutant("zeros", "scores * weights, v)", "0 * scores * weights, v)"),
        Mutant("not transposed back", '"bhij,bjhe->bihe"', '"bhij,bjhe->bhie"'),
    ],
    "4.2": [
        Mutant("decay^i", "(i[:, None] + 1)", "i[:, None]"),
        Mutant("decay^(i+2)", "(i[:, None] + 1)", "(i[:, None] + 2)"),
        Mutant("decay^(m-i)", "(i[:, None] + 1)", "(q.shape[1] - i[:, None])"),
        Mutant("the keys' decay", "(i[:, None] + 1)", "(q.shape[1] - 1 - i[:, None])"),
        Mutant("decay of the whole block", "(i[:, None] + 1)", "(0 * i[:, None] + q.shape[1])"),
        Mutant("one decay for all tokens", "(i[:, None] + 1)", "(0 * i[:, None] + 1)"),
        Mutant("no decay", "q * q_decay[:, :, None]", "q"),
        Mutant("decay on both", 'q * q_decay[:, :, None], state)',
               'q * q_decay[:, :, None], state) * q_decay[:, :, None]'),
        Mutant("sign of the exponent", "torch.exp(-slopes", "torch.exp(slopes"),
        Mutant("state transposed", "state)", "state.transpose(-1, -2) if state.shape[-1] == state.shape[-2] else "
                                             "state)"),
        Mutant("state transposed always", '"bihd,bhde->bihe"', '"bihe,bhde->bihd"'),
        Mutant("first head's slope for all", "-slopes *", "-slopes[:1].expand_as(slopes) *"),
        Mutant("heads in reverse", "-slopes *", "-slopes.flip(0) *"),
        Mutant("scaled by 1/sqrt(D)", "q * q_decay", "q / q.shape[-1] ** 0.5 * q_decay"),
        Mutant("detached state", ", state)", ", state.detach())"),
        Mutant("first row's state for the batch", ", state)", ", state[:1].expand_as(state))"),
        Mutant("zeros", ", state)", ", 0 * state)"),
    ],
    "4.3": [
        Mutant("state not decayed", "block_decay * state", "state"),
        Mutant("state decays once", "-slopes * m)[", "-slopes)["),
        Mutant("state decays m - 1 times", "-slopes * m)[", "-slopes * (m - 1))["),
        Mutant("state decays m + 1 times", "-slopes * m)[", "-slopes * (m + 1))["),
        Mutant("old state lost", "block_decay * state + ", ""),
        Mutant("newest key decays", "m - 1 - j[:, None]", "m - j[:, None]"),
        Mutant("keys reversed", "m - 1 - j[:, None]", "j[:, None]"),
        Mutant("the queries' decay", "m - 1 - j[:, None]", "j[:, None] + 1"),
        Mutant("keys not decayed", "k * k_decay[:, :, None]", "k"),
        Mutant("decay on k and v", "k_decay[:, :, None], v)", "k_decay[:, :, None], v * k_decay[:, :, None])"),
        Mutant("all decayed together", "k_decay[:, :, None], v)", "k_decay[:, :, None], v) * block_decay"),
        Mutant("wrong axis", "[:, None, None]", ""),
        Mutant("sign of the exponents", "-slopes * (m - 1", "slopes * (m - 1"),
        Mutant("m from the batch axis", "m = k.shape[1]", "m = k.shape[0]"),
        Mutant("m is a constant", "m = k.shape[1]", "m = 5"),
        Mutant("only the last key", "k * k_decay[:, :, None], v)", "(k * k_decay[:, :, None])[:, -1:], v[:, -1:])"),
        Mutant("in place", "return block_decay * state +", "return state.mul_(block_decay) +"),
        Mutant("detached state", "block_decay * state", "block_decay * state.detach()"),
        Mutant("first head's slope for all", "-slopes * (m - 1", "-slopes[:1].expand_as(slopes) * (m - 1"),
        Mutant("mean instead of sum", 'torch.einsum("bjhd', '1 / m * torch.einsum("bjhd'),
    ],
    "4.4": [
        Mutant("blocks do not know of one another", " + inter_block(q_block, state, slopes)", ""),
        Mutant("state updated before it is read", "        outs.append(", f"        {UPDATE}\n        outs.append("),
        Mutant("state never updated", UPDATE, "pass"),
        Mutant("state of the newest block alone", UPDATE, "state = update_state(k_block, v_block, "
                                                          "torch.zeros_like(state), slopes)"),
        Mutant("state carried without decay", UPDATE,
               "state = state + update_state(k_block, v_block, torch.zeros_like(state), slopes)"),
        Mutant("state decays once per block", UPDATE,
               "state = torch.exp(-slopes)[:, None, None] * state + update_state(k_block, v_block, "
               "torch.zeros_like(state), slopes)"),
        Mutant("state decays a full block at the ragged end", UPDATE,
               "state = torch.exp(-slopes * BLOCK)[:, None, None] * state"
               " + update_state(k_block, v_block, torch.zeros_like(state), slopes)"),
        Mutant("keys of the ragged end decay as in a full block", UPDATE,
               "m = k_block.shape[1]\n        state = torch.exp(-slopes * m)[:, None, None] * state"
               " + torch.exp(-slopes * (BLOCK - m))[:, None, None]"
               " * update_state(k_block, v_block, torch.zeros_like(state), slopes)"),
        Mutant("ragged end padded with zeros", UPDATE,
               "pad = (0, 0, 0, 0, 0, BLOCK - k_block.shape[1])\n        state = update_state("
               "torch.nn.functional.pad(k_block, pad), torch.nn.functional.pad(v_block, pad), state, slopes)"),
        Mutant("state read one decay too strong", "inter_block(q_block, state, slopes)",
               "torch.exp(slopes)[:, None] * inter_block(q_block, state, slopes)"),
        Mutant("ragged end dropped from the state", UPDATE,
               "state = update_state(k_block, v_block, state, slopes) if k_block.shape[1] == BLOCK or q.shape[1] < "
               "BLOCK else state"),
        Mutant("ragged end dropped from the output", "return torch.cat(outs, dim=1), state",
               "out = torch.cat(outs, dim=1)\n"
               "    n = max(q.shape[1] // BLOCK * BLOCK, min(BLOCK, q.shape[1]))\n"
               "    return torch.cat([out[:, :n], 0 * out[:, n:]], dim=1), state"),
        Mutant("blocks overlap by a token", "x[:, start : start + BLOCK] for", "x[:, max(start - 1, 0) : start + "
                                                                               "BLOCK][:, -BLOCK:] for"),
        Mutant("incoming state ignored", "if state is None:", "if document_ids is None:"),
        Mutant("returns the incoming state", "return torch.cat(outs, dim=1), state", "return torch.cat(outs, dim=1), 0 "
                                                                                     "* state"),
        Mutant("output alone", "return torch.cat(outs, dim=1), state", "return torch.cat(outs, dim=1)"),
        Mutant("state detached between blocks", "inter_block(q_block, state, slopes)", "inter_block(q_block, "
                                                                                       "state.detach(), slopes)"),
        Mutant("documents ignored", EACH_DOCUMENT, "pass"),
        Mutant("documents of the first row for all", "documents_of(document_ids[row])",
               "documents_of(document_ids[0])"),
        Mutant("every document starts from the incoming state", START, "start = state[row : row + 1]"),
        Mutant("no document starts from it", START, "start = torch.zeros_like(end)"),
        Mutant("documents continue one another", START, "start = end"),
        Mutant("state of the first document returned", "out[row, at] = piece[0]",
               "out[row, at] = piece[0]\n            first = end if number == 0 else first\n        end = first if "
               "len(piece) else end"),
        Mutant("states of documents summed", "piece, end = lightning(*(x[row : row + 1, at] for x in (q, k, v)), "
                                             "slopes, state=start)",
               "piece, after = lightning(*(x[row : row + 1, at] for x in (q, k, v)), slopes, state=start)\n"
               "            end = after if number == 0 else end + after"),
        Mutant("documents in the order of their ids", ONE_BY_ONE,
               "for number, at in enumerate(sorted(documents_of(document_ids[row]), key=lambda at: "
               "int(document_ids[row, at[0]]))):"),
        Mutant("same ids joined", ONE_BY_ONE,
               "for number, at in enumerate([(document_ids[row] == n).nonzero().flatten().tolist()"
               " for n in dict.fromkeys(document_ids[row].tolist()) if n >= 0]):"),
        Mutant("padding is a document", ONE_BY_ONE,
               "for number, at in enumerate(documents_of(document_ids[row] + 1)):"),
        Mutant("padding gets its token's query", "out[row, at] = piece[0]",
               "out[row, at] = piece[0]\n        out = out + (document_ids < 0)[:, :, None, None]"),
        Mutant("padding ends a document", ONE_BY_ONE,
               "ids = document_ids[row].tolist()\n"
               "        cuts = [t for t in range(len(ids)) if t == 0 or ids[t] != ids[t - 1]] + [len(ids)]\n"
               "        for number, at in enumerate([list(range(a, b)) for a, b in zip(cuts, cuts[1:]) if ids[a] >= 0]):"),
        Mutant("padding decays", ONE_BY_ONE,
               "k = k * (document_ids >= 0)[:, :, None, None]\n"
               "        filled = document_ids[row].tolist()\n"
               "        last = next((n for n in filled if n >= 0), 0)\n"
               "        for t, n in enumerate(filled):\n            last = filled[t] = n if n >= 0 else last\n"
               "        for number, at in enumerate(documents_of(torch.tensor(filled))):"),
        Mutant("an all-padding row gets a zero state", "end = state[row : row + 1]",
               "end = state[row : row + 1] if (document_ids[row] >= 0).any() else torch.zeros_like(state[:1])"),
        Mutant("documents detached", "out[row, at] = piece[0]", "out[row, at] = piece[0].detach()"),
        Mutant("states of rows in reverse", "return out, torch.cat(ends)", "return out, torch.cat(ends[::-1])"),
        Mutant("only float32", "return torch.cat(outs, dim=1), state", "return torch.cat(outs, dim=1).float(), "
                                                                       "state.float()"),
        Mutant("zeros", "return torch.cat(outs, dim=1), state", "return 0 * torch.cat(outs, dim=1), state"),
    ],
    "4.5": [
        Mutant("decay^i", "torch.arange(1, q.shape[1] + 1", "torch.arange(q.shape[1]"),
        Mutant("decays reversed", "passed[:, None])", "passed.flip(0)[:, None])"),
        Mutant("no decay in the output", "q * q_decay[:, :, None]", "q"),
        Mutant("output not mended", "out + read", "out + 0 * read"),
        Mutant("output replaced", "return out + read", "return read"),
        Mutant("reads the end", "[:, :, None], state)", "[:, :, None], end)"),
        Mutant("end not mended", "end + decay * state", "end"),
        Mutant("end mended without decay", "end + decay * state", "end + state"),
        Mutant("end: one decay", "-slopes * q.shape[1])[", "-slopes)["),
        Mutant("end: m - 1", "-slopes * q.shape[1])[", "-slopes * (q.shape[1] - 1))["),
        Mutant("end: m + 1", "-slopes * q.shape[1])[", "-slopes * (q.shape[1] + 1))["),
        Mutant("end: m from the batch axis", "-slopes * q.shape[1])[", "-slopes * q.shape[0])["),
        Mutant("end: all decayed", "end + decay * state", "decay * (end + state)"),
        Mutant("end: sign of the exponent", "decay = torch.exp(-slopes * "
                                            "q.shape[1])", "decay = torch.exp(slopes * q.shape[1])"),
        Mutant("end: wrong axis", "[:, None, None]", ""),
        Mutant("end replaced", "end + decay * state", "decay * state"),
        Mutant("in place", "return out + read", "return out.add_(read)"),
    ],
    "4.6": [
        Mutant("no decay", "decay_2[:, None, None] * state_1 + state_2", "state_1 + state_2"),
        Mutant("second state decays", "decay_2[:, None, None] * state_1 + "
                                      "state_2", "state_1 + decay_1[:, None, None] * state_2"),
        Mutant("pieces exchanged", "decay_2[:, None, None] * state_1 + "
                                   "state_2", "decay_1[:, None, None] * state_2 + state_1"),
        Mutant("its own decay", "decay_2[:, None, None]", "decay_1[:, None, None]"),
        Mutant("both decays", "decay_2[:, None, None]", "(decay_1 * decay_2)[:, None, None]"),
        Mutant("both states decay", "decay_2[:, None, None] * state_1 + state_2", "decay_2[:, None, None] * (state_1 + "
                                                                                  "state_2)"),
        Mutant("first lost", "decay_2[:, None, None] * state_1 + ", ""),
        Mutant("second lost", " + state_2", ""),
        Mutant("wrong axis", "[:, None, None]", ""),
        Mutant("decays added", "decay_1 * decay_2", "decay_1 + decay_2"),
        Mutant("first decay", "decay_1 * decay_2", "decay_1"),
        Mutant("second decay", "decay_1 * decay_2", "decay_2"),
        Mutant("decay detached", "return decay_2[", "return decay_2.detach()["),
        Mutant("in place", "return decay_2", "state_1.mul_(decay_2[:, None, None])\n    return decay_2"),
    ],
}
