"""Chapter 09."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 9.1
FLOPS = '''
def flops_per_token(config, context):
    C, H, D, G = config.hidden_size, config.num_attention_heads, config.head_dim, config.num_key_value_heads
    E, K, F, V = config.num_local_experts, config.num_experts_per_tok, config.intermediate_size, config.vocab_size
    total = 2 * C * V
    for kind in config.attn_type_list:
        if kind == 0:
            total += 2 * 5 * C * H * D + 2 * 2 * H * D * D
        else:
            total += 2 * (2 * C * H * D + 2 * C * G * D) + 2 * 2 * H * D * context
        total += 2 * C * E + 2 * K * 3 * C * F
    return total
'''
FLIGHT = "2 * 5 * C * H * D"
FSTATE = "2 * 2 * H * D * D"
FSOFT = "2 * (2 * C * H * D + 2 * C * G * D)"
FATT = "2 * 2 * H * D * context"
FMOE = "total += 2 * C * E + 2 * K * 3 * C * F"
fam("9.1", FLOPS, [
 ("base", "right"),
 ("layers_counted_first", "right", "    for kind in", "    L, S = (sum(k == kind for k in config.attn_type_list) for kind in (0, 1))\n    return 2 * (C * V + (L + S) * (C * E + 3 * K * C * F) + L * (5 * C * H * D + 2 * H * D * D) + S * (2 * C * (H + G) * D + 2 * H * D * context))\n    for kind in"),
 ("doubled_at_the_end", "right", "total = 2 * C * V", "total = C * V", FLIGHT, "5 * C * H * D", FSTATE, "2 * D ** 2 * H", FSOFT, "2 * C * D * (H + G)", FATT, "H * (D + D) * context", FMOE, "total += C * E + K * 3 * C * F", "return total", "return 2 * total"),
 ("matrix_by_matrix", "right", FLIGHT, "sum(2 * n * m for n, m in [(C, H * D)] * 4 + [(H * D, C)])", FSOFT, "sum(2 * C * width for width in (H * D, G * D, G * D, H * D))"),
 ("heads_in_a_loop", "right", FATT, "sum(2 * D + 2 * D for _ in range(H)) * context", FSTATE, "sum(4 * D * D for _ in range(H))"),
 ("truth_of_kind", "right", "if kind == 0:", "if not kind:"),
 ("layers_by_number", "right", "for kind in config.attn_type_list:", "for layer in range(config.num_hidden_layers):\n        kind = config.attn_type_list[layer]"),
 ("multiply_adds", "wrong", "return total", "return total // 2"),
 ("state_once", "wrong", FSTATE, "2 * H * D * D"),
 ("state_missing", "wrong", FSTATE, "0"),
 ("state_of_d", "wrong", FSTATE, "2 * 2 * H * D"),
 ("state_of_all_heads", "wrong", FSTATE, "2 * 2 * H * D * H * D"),
 ("state_one_head", "wrong", FSTATE, "2 * 2 * D * D"),
 ("state_of_kv_heads", "wrong", FSTATE, "2 * 2 * G * D * D"),
 ("state_times_context", "wrong", FSTATE, "2 * 2 * H * D * D * context"),
 ("lightning_four", "wrong", FLIGHT, "2 * 4 * C * H * D"),
 ("lightning_grouped", "wrong", FLIGHT, "2 * C * D * (3 * H + 2 * G)"),
 ("lightning_square", "wrong", FLIGHT, "2 * 5 * C * C"),
 ("softmax_square", "wrong", FSOFT, "2 * (2 * C * C + 2 * C * G * D)"),
 ("head_dim_from_width", "wrong", "config.head_dim,", "config.hidden_size // config.num_attention_heads,"),
 ("softmax_not_grouped", "wrong", FSOFT, "2 * 4 * C * H * D"),
 ("softmax_gate", "wrong", FSOFT, "2 * (3 * C * H * D + 2 * C * G * D)"),
 ("softmax_one_kv", "wrong", FSOFT, "2 * (2 * C * H * D + C * G * D)"),
 ("softmax_no_out", "wrong", FSOFT, "2 * (C * H * D + 2 * C * G * D)"),
 ("attention_grouped", "wrong", FATT, "2 * 2 * G * D * context"),
 ("scores_only", "wrong", FATT, "2 * H * D * context"),
 ("attention_softmax_counted", "wrong", FATT, "(2 * 2 * D + 1) * H * context"),
 ("attention_average", "wrong", FATT, "2 * H * D * (context + 1)"),
 ("attention_quadratic", "wrong", FATT, "2 * 2 * H * D * context * context"),
 ("without_new_token", "wrong", FATT, "2 * 2 * H * D * (context - 1)"),
 ("with_one_more", "wrong", FATT, "2 * 2 * H * D * (context + 1)"),
 ("context_capped", "wrong", FATT, "2 * 2 * H * D * min(context, config.max_position_embeddings)"),
 ("kinds_swapped", "wrong", "if kind == 0:", "if kind == 1:"),
 ("every_eighth", "wrong", "for kind in config.attn_type_list:", "for layer in range(config.num_hidden_layers):\n        kind = int(layer % 8 == 7)"),
 ("kinds_once", "wrong", "in config.attn_type_list", "in set(config.attn_type_list)"),
 ("all_experts", "wrong", "2 * K * 3", "2 * E * 3"),
 ("two_matrices", "wrong", "2 * K * 3", "2 * K * 2"),
 ("router_chosen", "wrong", "2 * C * E +", "2 * C * K +"),
 ("router_missing", "wrong", "2 * C * E +", ""),
 ("router_when_several", "wrong", "2 * C * E +", "2 * C * E * (E > 1) +"),
 ("router_no_factor", "wrong", "2 * C * E +", "C * E +"),
 ("router_once", "wrong", "total = 2 * C * V", "total = 2 * C * V + 2 * C * E", "2 * C * E + 2 * K", "2 * K"),
 ("experts_in_lightning_only", "wrong", FMOE, "if kind == 0: " + FMOE),
 ("weighted_sum", "wrong", FMOE, FMOE + " + 2 * K * C"),
 ("head_missing", "wrong", "total = 2 * C * V", "total = 0"),
 ("head_each_layer", "wrong", "total = 2 * C * V", "total = 2 * C * V * len(config.attn_type_list)"),
 ("embedding_too", "wrong", "total = 2 * C * V", "total = 4 * C * V"),
 ("float", "wrong", "return total", "return float(total)"),
 ("float32", "wrong", "def flops", "import torch\ndef flops", "return total", "return int(torch.tensor(float(total)))"),
 ("int32_layer", "wrong", "def flops", "import numpy as np\ndef flops", "return total", "return int(np.array([total]).astype(np.int32)[0])"),
])
add("9.1", "recursive", "right", '''
def flops_per_token(config, context, layers=None):
    c = config
    layers = c.attn_type_list if layers is None else layers
    if len(layers) == 0:
        return 2 * c.hidden_size * c.vocab_size
    wide, narrow = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    mixing = {0: 10 * c.hidden_size * wide + 4 * wide * c.head_dim, 1: 4 * c.hidden_size * (wide + narrow) + 4 * wide * context}
    moe = c.hidden_size * (2 * c.num_local_experts + 6 * c.num_experts_per_tok * c.intermediate_size)
    return mixing[layers[0]] + moe + flops_per_token(config, context, layers[1:])
''')
add("9.1", "table_of_products", "right", '''
from math import prod
def flops_per_token(config, context):
    C, N, M, D = config.hidden_size, config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim, config.head_dim
    moe = [(C, config.num_local_experts)] + config.num_experts_per_tok * [(3, C, config.intermediate_size)]
    lightning, softmax = [(5, C, N), (2, N, D)], [(2, C, N), (2, C, M), (2, N, context)]
    products = [(C, config.vocab_size)]
    for kind in config.attn_type_list:
        products += moe + (softmax if kind else lightning)
    return 2 * sum(prod(p) for p in products)
''')

# ------------------------------------------------------------ 9.2
FILL = '''
import torch
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    if cache is None:
        cache = model.new_cache()
    with torch.no_grad():
        for start in range(0, input_ids.shape[1], piece):
            end = start + piece
            documents = None if document_ids is None else document_ids[:, start:end]
            logits = model(input_ids[:, start:end], document_ids=documents, cache=cache, last_only=True).logits
    return logits[:, -1], cache
'''
PN = "if cache is None:\n        cache = model.new_cache()"
PR = "range(0, input_ids.shape[1], piece)"
PE = "end = start + piece"
PD = "documents = None if document_ids is None else document_ids[:, start:end]"
PM = "logits = model(input_ids[:, start:end], document_ids=documents, cache=cache, last_only=True).logits"
PO = "return logits[:, -1], cache"
PG = "with torch.no_grad():"
fam("9.2", FILL, [
 ("base", "right"),
 ("decorated", "right", "def prefill", "@torch.no_grad()\ndef prefill", PG, "if True:"),
 ("grad_disabled", "right", PG, "with torch.set_grad_enabled(False):"),
 ("squeezed_middle", "right", PO, "return logits.squeeze(1), cache"),
 ("entry_zero_cloned", "right", PO, "return logits[:, 0, :].clone(), cache"),
 ("minimum", "right", PE, "end = min(start + piece, input_ids.shape[1])"),
 ("only_options_given", "right", PM, "options = {} if document_ids is None else {'document_ids': documents}\n            logits = model(input_ids[:, start:end], cache=cache, last_only=True, **options).logits"),
 ("narrow", "right", PE, "end = start + min(piece, input_ids.size(1) - start)", "input_ids[:, start:end]", "input_ids.narrow(1, start, end - start)"),
 ("in_one_go", "wrong", PR, "[0]", PE, "end = input_ids.shape[1]"),
 ("token_by_token", "wrong", PR, "range(input_ids.shape[1])", PE, "end = start + 1"),
 ("piece_longer", "wrong", PE, "end = start + piece + 1"),
 ("piece_longer_no_overlap", "wrong", PR, "range(0, input_ids.shape[1], piece + 1)", PE, "end = start + piece + 1"),
 ("piece_shorter", "wrong", PR, "range(0, input_ids.shape[1], max(1, piece - 1))", PE, "end = start + max(1, piece - 1)"),
 ("rest_lost", "wrong", PR, "range(0, max(piece, input_ids.shape[1] // piece * piece), piece)"),
 ("rest_first", "wrong", PR, "([0] if input_ids.shape[1] % piece else []) + list(range(input_ids.shape[1] % piece, input_ids.shape[1], piece))", PE, "end = start + piece if start or input_ids.shape[1] % piece == 0 else input_ids.shape[1] % piece"),
 ("equal_pieces", "wrong", PR, "range(0, input_ids.shape[1], step)", "    with torch", "    step = -(-input_ids.shape[1] // -(-input_ids.shape[1] // piece))\n    with torch", PE, "end = start + step"),
 ("that_many_pieces", "wrong", PR, "range(0, input_ids.shape[1], -(-input_ids.shape[1] // piece))", PE, "end = start + -(-input_ids.shape[1] // piece)"),
 ("last_window_overlaps", "wrong", PE, "start = max(0, min(start, input_ids.shape[1] - piece)); end = start + piece"),
 ("empty_last", "wrong", PR, "range(0, input_ids.shape[1] + 1, piece)"),
 ("two_pieces", "wrong", PR, "[s for s in (0, piece) if s < input_ids.shape[1]]", PE, "end = start + piece if start == 0 else input_ids.shape[1]"),
 ("backwards", "wrong", PR, "reversed(range(0, input_ids.shape[1], piece))"),
 ("last_token_alone", "wrong", PR, "[*range(0, input_ids.shape[1] - 1, piece), input_ids.shape[1] - 1]", PE, "end = min(start + piece, input_ids.shape[1] - 1) if start < input_ids.shape[1] - 1 else start + 1"),
 ("padded_to_piece", "wrong", PG, "input_ids = torch.nn.functional.pad(input_ids, (0, -input_ids.shape[1] % piece))\n    with torch.no_grad():"),
 ("prefix_each_time", "wrong", "input_ids[:, start:end]", "input_ids[:, :end]"),
 ("cache_each_piece", "wrong", PE, PE + "; cache = model.new_cache()"),
 ("given_cache_ignored", "wrong", PN, "cache = model.new_cache()"),
 ("no_cache_made", "wrong", PN, "pass"),
 ("cache_not_passed", "wrong", ", cache=cache", ""),
 ("cache_copied", "wrong", "import torch", "import copy\nimport torch", PN, "cache = model.new_cache() if cache is None else copy.deepcopy(cache)"),
 ("cache_kept_between_calls", "wrong", "def prefill", "MEMORY = {}\ndef prefill", PN, "if cache is None:\n        cache = MEMORY.setdefault(id(model), model.new_cache())"),
 ("last_only_missing", "wrong", ", last_only=True", ""),
 ("last_only_at_the_end", "wrong", "last_only=True", "last_only=end >= input_ids.shape[1]"),
 ("last_only_before_the_end", "wrong", "last_only=True", "last_only=end < input_ids.shape[1]"),
 ("all_logits_kept", "wrong", "    with torch", "    kept = []\n    with torch", PM, PM.replace("logits = ", "kept.append(") + ")", PO, "return kept[-1][:, -1], cache"),
 ("all_logits_returned", "wrong", "    with torch", "    kept = []\n    with torch", PM, PM.replace("logits = ", "kept.append(") + ")", PO, "return torch.cat(kept, 1), cache"),
 ("documents_lost", "wrong", PM, PM.replace("document_ids=documents, ", "")),
 ("documents_uncut", "wrong", PD, "documents = document_ids"),
 ("documents_first_only", "wrong", PD, PD.replace("if document_ids is None", "if document_ids is None or start")),
 ("documents_from_front", "wrong", PD, PD.replace("[:, start:end]", "[:, :input_ids[:, start:end].shape[1]]")),
 ("documents_needed", "wrong", PD, "documents = document_ids[:, start:end]"),
 ("padding_cut_off", "wrong", PD, "documents = None if document_ids is None else document_ids[:, start:end].clamp(min=0)"),
 ("inference_mode", "wrong", PG, "with torch.inference_mode():"),
 ("inference_mode_cloned", "wrong", PG, "with torch.inference_mode():", PO, "return logits[:, -1].clone(), cache"),
 ("gradient_recorded", "wrong", PG, "if True:"),
 ("no_grad_without_with", "wrong", PG, "torch.no_grad()\n    if True:"),
 ("logits_detached_only", "wrong", PG, "if True:", PO, "return logits[:, -1].detach(), cache"),
 ("grad_left_off", "wrong", PG, "torch.set_grad_enabled(False)\n    if True:"),
 ("grad_left_on", "wrong", PG, "torch.set_grad_enabled(False)\n    if True:", PO, "torch.set_grad_enabled(True); return logits[:, -1], cache"),
 ("no_grad_at_the_end", "wrong", PG, "if True:", "            logits = model", "            with torch.set_grad_enabled(end < input_ids.shape[1]): logits = model"),
 ("time_kept", "wrong", PO, "return logits, cache"),
 ("squeezed_all", "wrong", PO, "return logits.squeeze(), cache"),
 ("first_row", "wrong", PO, "return logits[0], cache"),
 ("first_piece", "wrong", PM, "now = " + PM[9:] + "; logits = now if start == 0 else logits"),
 ("logits_alone", "wrong", PO, "return logits[:, -1]"),
 ("order_swapped", "wrong", PO, "return cache, logits[:, -1]"),
 ("log_softmax", "wrong", PO, "return logits[:, -1].log_softmax(-1), cache"),
 ("bf16", "wrong", PO, "return logits[:, -1].bfloat16(), cache"),
])
add("9.2", "split_and_zip", "right", '''
import torch
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    cache = model.new_cache() if cache is None else cache
    pieces = input_ids.split(piece, dim=1)
    marks = [None] * len(pieces) if document_ids is None else document_ids.split(piece, dim=1)
    for ids, mark in zip(pieces, marks):
        with torch.no_grad():
            out = model(ids, cache=cache, document_ids=mark, last_only=True)
    return out.logits.flatten(1), cache
''')
add("9.2", "recursive_keeps_logits", "wrong", '''
import torch
@torch.no_grad()
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    cache = model.new_cache() if cache is None else cache
    head = None if document_ids is None else document_ids[:, :piece]
    logits = model(input_ids[:, :piece], document_ids=head, cache=cache, last_only=True).logits[:, 0]
    if input_ids.shape[1] <= piece:
        return logits, cache
    return prefill(model, input_ids[:, piece:], piece, cache=cache, document_ids=None if document_ids is None else document_ids[:, piece:])
''')
add("9.2", "while_loop", "right", '''
import torch
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        if cache is None:
            cache = model.new_cache()
        done, total = 0, input_ids.size(1)
        while done < total:
            take = torch.arange(done, min(total, done + piece), device=input_ids.device)
            options = dict(cache=cache, last_only=True)
            if document_ids is not None:
                options["document_ids"] = document_ids.index_select(1, take)
            out = model(input_ids.index_select(1, take), **options).logits
            done += len(take)
        return out[:, -1].contiguous(), cache
    finally:
        torch.set_grad_enabled(before)
''')

# ------------------------------------------------------------ 9.3
NEEDLE = '''
import re
from collections import Counter
def score_needles(answer, asked):
    items = [item.strip() for item in re.split("[,\\n]", answer)]
    items = [item for item in items if item]
    left = Counter(asked)
    credited = duplicates = near = invented = 0
    for item in items:
        if left[item] > 0:
            left[item] -= 1
            credited += 1
        elif item in asked:
            duplicates += 1
        elif any(len(item) == len(needle) and sum(a != b for a, b in zip(item, needle)) == 1 for needle in asked):
            near += 1
        else:
            invented += 1
    longest = [[0] * (len(asked) + 1) for _ in range(len(items) + 1)]
    for i, item in enumerate(items):
        for j, needle in enumerate(asked):
            longest[i + 1][j + 1] = longest[i][j] + 1 if item == needle else max(longest[i][j + 1], longest[i + 1][j])
    return {"found": credited / len(asked), "order": longest[-1][-1] / len(asked), "duplicates": duplicates,
            "near": near, "invented": invented}
'''
NS = 're.split("[,\\n]", answer)'
NF = "items = [item for item in items if item]"
NL = "left = Counter(asked)"
NN = "len(item) == len(needle) and sum(a != b for a, b in zip(item, needle)) == 1"
ND = "elif item in asked:"
NO = '"order": longest[-1][-1] / len(asked)'
LCS = "longest[i + 1][j + 1] = longest[i][j] + 1 if item == needle else max(longest[i][j + 1], longest[i + 1][j])"
fam("9.3", NEEDLE, [
 ("base", "right"),
 ("replace_and_split", "right", NS, 'answer.replace("\\n", ",").split(",")'),
 ("list_of_left", "right", NL, "left = list(asked)", "if left[item] > 0:", "if item in left:", "left[item] -= 1", "left.remove(item)"),
 ("counted_by_counters", "right", "    longest = ", "    have, want = Counter(items), Counter(asked)\n    credited = sum(min(have[n], want[n]) for n in want)\n    duplicates = sum(have[n] for n in want) - credited\n    longest = "),
 ("one_letter_open", "right", NN, "any(item[:k] == needle[:k] and item[k + 1:] == needle[k + 1:] for k in range(len(needle))) and len(item) == len(needle) and item != needle"),
 ("invented_as_rest", "right", "    longest = ", "    invented = len(items) - credited - duplicates - near\n    longest = "),
 ("not_stripped", "wrong", "item.strip() for", "item for"),
 ("left_stripped", "wrong", "item.strip()", "item.lstrip()"),
 ("empty_counted", "wrong", NF, "items = items or []"),
 ("empty_before_strip", "wrong", "for item in " + NS + "]", "for item in " + NS + " if item]", NF, "pass"),
 ("commas_only", "wrong", NS, 'answer.split(",")'),
 ("lines_only", "wrong", NS, 'answer.split("\\n")'),
 ("blanks_cut_too", "wrong", NS, 're.split("[,\\\\s]", answer)'),
 ("semicolons_too", "wrong", NS, 're.split("[,;\\n]", answer)'),
 ("numbers_only", "wrong", NF, "items = [item for item in items if item.isdigit()]"),
 ("case_folded", "wrong", NF, "items = [item.lower() for item in items if item]; asked = [needle.lower() for needle in asked]"),
 ("found_as_substring", "wrong", '"found": credited / len(asked)', '"found": sum(needle in answer for needle in asked) / len(asked)'),
 ("found_by_set", "wrong", '"found": credited / len(asked)', '"found": len(set(items) & set(asked)) / len(asked)'),
 ("found_of_set", "wrong", '"found": credited / len(asked)', '"found": len(set(items) & set(asked)) / len(set(asked))'),
 ("found_asked_in_items", "wrong", '"found": credited / len(asked)', '"found": sum(needle in items for needle in asked) / len(asked)'),
 ("found_items_in_asked", "wrong", '"found": credited / len(asked)', '"found": min(1.0, sum(item in asked for item in items) / len(asked))'),
 ("found_of_items", "wrong", '"found": credited / len(asked)', '"found": credited / max(1, len(items))'),
 ("found_count", "wrong", '"found": credited / len(asked)', '"found": float(credited)'),
 ("asked_once", "wrong", NL, "left = Counter(set(asked))"),
 ("credit_unlimited", "wrong", "            left[item] -= 1\n", ""),
 ("asked_emptied", "wrong", NL, "left = asked; order = list(asked)", "if left[item] > 0:", "if item in left:", "left[item] -= 1", "left.remove(item)", "elif item in asked", "elif item in order", "for needle in asked):", "for needle in order):", "    longest = ", "    gone, n = left, len(order)\n    asked = order; longest = "),
 ("near_unfound_only", "wrong", "for needle in asked):", "for needle in asked if left[needle] > 0):"),
 ("near_found_only", "wrong", "for needle in asked):", "for needle in asked if left[needle] < asked.count(needle)):"),
 ("near_first_needle", "wrong", "for needle in asked):", "for needle in asked[:1]):"),
 ("near_any_length", "wrong", "len(item) == len(needle) and ", ""),
 ("near_edit_distance", "wrong", NN, "(len(item) == len(needle) and sum(a != b for a, b in zip(item, needle)) == 1) or any(item[:k] + item[k + 1:] == needle for k in range(len(item))) or any(needle[:k] + needle[k + 1:] == item for k in range(len(needle)))"),
 ("near_two", "wrong", "zip(item, needle)) == 1", "zip(item, needle)) <= 2"),
 ("near_letters_as_sets", "wrong", NN, "len(item) == len(needle) and len(set(item) - set(needle)) == 1"),
 ("near_last_character", "wrong", NN, "len(item) == len(needle) and item[:-1] == needle[:-1]"),
 ("near_counts_needles", "wrong", "near += 1", "near += sum(" + NN + " for needle in asked)"),
 ("near_distinct", "wrong", "    longest = ", "    near = min(near, len({i for i in items if i not in asked}))\n    longest = "),
 ("near_is_invented_too", "wrong", "near += 1", "near += 1; invented += 1"),
 ("near_before_duplicates", "wrong", ND, "elif item in asked and not any(" + NN + " for needle in asked):"),
 ("near_before_credit", "wrong", "if left[item] > 0:", "if left[item] > 0 and not any(left[needle] > 0 and " + NN + " for needle in asked):"),
 ("duplicate_is_invented", "wrong", "duplicates += 1", "duplicates += 1; invented += 1"),
 ("duplicates_of_anything", "wrong", "for item in items:\n        if", "for number, item in enumerate(items):\n        if", ND, "elif item in items[:number]:"),
 ("duplicates_distinct", "wrong", "    longest = ", "    duplicates = sum(items.count(n) > asked.count(n) for n in set(asked))\n    longest = "),
 ("invented_distinct", "wrong", "    longest = ", "    invented = min(invented, len(set(items) - set(asked)) - near)\n    longest = "),
 ("order_of_items", "wrong", NO, '"order": longest[-1][-1] / max(1, len(items))'),
 ("order_of_found", "wrong", NO, '"order": longest[-1][-1] / max(1, credited)'),
 ("order_not_divided", "wrong", NO, '"order": float(longest[-1][-1])'),
 ("order_place_by_place", "wrong", NO, '"order": sum(a == b for a, b in zip(items, asked)) / len(asked)'),
 ("order_prefix", "wrong", NO, '"order": next((n for n in range(min(len(items), len(asked)), -1, -1) if items[:n] == asked[:n]), 0) / len(asked)'),
 ("order_contiguous", "wrong", LCS, "longest[i + 1][j + 1] = longest[i][j] + 1 if item == needle else 0", NO, '"order": max(map(max, longest)) / len(asked)'),
 ("order_greedy", "wrong", NO, '"order": greedy / len(asked)', "    longest = ", "    greedy, at = 0, 0\n    for item in items:\n        if item in asked[at:]:\n            at += asked[at:].index(item) + 1; greedy += 1\n    longest = "),
 ("order_greedy_by_asked", "wrong", NO, '"order": greedy / len(asked)', "    longest = ", "    greedy = 0\n    rest = iter(items)\n    for needle in asked:\n        if needle in rest: greedy += 1\n    longest = "),
 ("order_of_first_items", "wrong", "    longest = ", "    items = list(dict.fromkeys(items))\n    longest = "),
 ("order_of_credited", "wrong", "    longest = ", "    pool, kept = Counter(asked), []\n    for item in items:\n        if pool[item] > 0: pool[item] -= 1; kept.append(item)\n    items = kept\n    longest = "),
 ("order_counts_twice", "wrong", LCS, "longest[i + 1][j + 1] = max(longest[i][j + 1], longest[i + 1][j]) + (item == needle)"),
 ("order_of_pairs", "wrong", NO, '"order": (longest[-1][-1] - 1) / max(1, len(asked) - 1) if items else 0.0'),
 ("order_all_or_nothing", "wrong", NO, '"order": float(longest[-1][-1] == len(asked))'),
 ("order_is_found", "wrong", NO, '"order": credited / len(asked)'),
 ("order_near_counts", "wrong", LCS, LCS.replace("item == needle", "(item == needle or item not in asked and " + NN + ")")),
 ("percent", "wrong", '"found": credited / len(asked)', '"found": 100 * credited / len(asked)'),
 ("rounded", "wrong", '"found": credited / len(asked)', '"found": round(credited / len(asked), 2)'),
 ("key_missing", "wrong", '"near": near, ', ""),
 ("empty_fails", "wrong", '"found": credited / len(asked)', '"found": credited / len(items) * len(items) / len(asked)'),
 ("empty_has_an_item", "wrong", NF, NF + " or ['']"),
])
add("9.3", "recursion_with_memory", "right", '''
from functools import lru_cache
def score_needles(answer, asked):
    items = []
    for line in answer.split("\\n"):
        items.extend(part.strip() for part in line.split(",") if part.strip() != "")
    unfound, counts = list(asked), dict(duplicates=0, near=0, invented=0)
    for item in items:
        if item in unfound:
            unfound.remove(item)
        elif item in asked:
            counts["duplicates"] += 1
        else:
            distances = [sum(map(str.__ne__, item, needle)) for needle in asked if len(needle) == len(item)]
            counts["near" if 1 in distances else "invented"] += 1
    @lru_cache(None)
    def common(i, j):
        if i == len(items) or j == len(asked):
            return 0
        return max(common(i + 1, j), common(i, j + 1), common(i + 1, j + 1) + 1 if items[i] == asked[j] else 0)
    return counts | {"order": common(0, 0) / len(asked), "found": 1 - len(unfound) / len(asked)}
''')
add("9.3", "characters_and_one_row", "right", '''
def score_needles(answer, asked):
    items, word = [], ""
    for character in answer + ",":
        if character in ",\\n":
            items += [word.strip()] if word.strip() else []
            word = ""
        else:
            word += character
    row = [0] * (len(asked) + 1)
    for item in items:
        row = [0] + [row[j] for j in range(1, len(row))] if False else row
        before = 0
        for j in range(1, len(row)):
            before, row[j] = row[j], before + 1 if item == asked[j - 1] else max(row[j], row[j - 1])
    exact = [item for item in items if item in asked]
    found = sum(min(exact.count(needle), asked.count(needle)) for needle in sorted(set(asked)))
    others = [item for item in items if item not in asked]
    near = [item for item in others if any(len(n) == len(item) and [a == b for a, b in zip(n, item)].count(False) == 1 for n in asked)]
    return {"invented": len(others) - len(near), "near": len(near), "duplicates": len(exact) - found,
            "order": float(row[-1] / len(asked)), "found": found / len(asked)}
''')
