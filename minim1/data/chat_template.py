"""The chat template in Jinja, in which other programs keep it.

A program that reads the rendered text as a whole cannot tell a marker of the template from one that a message spells out.
So the template can put a `SEAL` behind every "<" of a message; a tokenizer with the normalizer `UNSEAL` finds the control
tokens first, then takes the seals away: the ids are those of `encode_chat`, whatever the messages say.
"""

import json

from minim1.data.chat import DEFAULT_SYSTEM, encode_chat
from minim1.data.tokenizer import CONTROL, HEADER_IDS, Tokenizer

SEAL = "\ufdd0"  # by Unicode no character; a text that has it keeps it
UNSEAL = {"type": "Replace", "pattern": {"Regex": f"(?<=<){SEAL}"}, "content": ""}


def chat_template(tokenizer: Tokenizer, seal: str = "") -> str:
    """The Jinja template that renders what `render_chat` does; `{% generation %}` stands where `encode_chat` masks with 1.

    It also takes the usual `reasoning_content`, and calls inside `function`; reasoning is one string. `seal` is put behind
    every "<" of a text.
    """
    def text(**more) -> str:
        ids = encode_chat(tokenizer, [{"role": "system", "content": None}], **more).ids
        return tokenizer.decode_completion(ids).replace("&lt;", "<" + seal)

    before, after = text(tools=[{}]).removeprefix(text()).split("{}\n")
    tags = ("think", "end_think", "tool_calls", "end_tool_calls", "eos")
    names = {name: CONTROL[i] for name, i in HEADER_IDS.items()}
    names |= {tag: CONTROL[getattr(tokenizer, f"{tag}_id")] for tag in tags}
    names |= {"start": text(), "before_tools": before, "after_tools": after, "default": DEFAULT_SYSTEM, "sealed": "<" + seal}
    return "".join(f"{{%- set {name.upper()} = {json.dumps(value)} -%}}\n" for name, value in names.items()) + TEMPLATE


TEMPLATE = """\
{%- macro said(content) -%}
    {%- if content is string -%}{{- content | trim | replace('<', SEALED) -}}
    {%- elif content -%}
        {%- for part in content -%}{{- part['text'] | trim | replace('<', SEALED) -}}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{{- START -}}
{%- if not messages or messages[0]['role'] != 'system' -%}
    {%- set messages = [{'role': 'system', 'content': DEFAULT}] + messages -%}
{%- endif -%}
{%- set system = said(messages[0]['content']) -%}
{%- if system -%}{{- SYSTEM + system + EOS -}}{%- endif -%}
{%- if tools -%}
    {{- BEFORE_TOOLS -}}
    {%- for tool in tools -%}{{- tool | tojson | replace('<', SEALED) + '\\n' -}}{%- endfor -%}
    {{- AFTER_TOOLS -}}
{%- endif -%}
{%- for message in messages[1:] -%}
    {%- set content = message['content'] -%}
    {%- if message['role'] == 'user' -%}{{- USER + said(content) + EOS -}}
    {%- elif message['role'] == 'tool' -%}
        {{- TOOL -}}
        {%- for result in ([{'name': message['name'], 'text': content}] if content is string else content) -%}
            {{- '' if loop.first else '\\n' -}}
            {{- 'tool name: ' + result['name'] | replace('<', SEALED) + '\\n' if result['name'] -}}
            {{- 'tool result: ' + result['text'] | replace('<', SEALED) + '\\n' -}}
        {%- endfor -%}
        {{- EOS -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- ASSISTANT -}}
        {%- generation -%}
        {%- set reasoning = message['reasoning'] if message['reasoning'] is string else message['reasoning_content'] -%}
        {%- set calls = message['tool_calls'] or [] -%}
        {%- set open = not calls and (content is none or content is undefined) -%}
        {{- THINK + reasoning | replace('<', SEALED) + ('' if open else END_THINK) if reasoning is string -}}
        {{- said(content) + ('\\n' if calls and said(content) else '') + (TOOL_CALLS if calls else '') -}}
        {%- for call in calls -%}
            {%- set call = call['function'] or call -%}
            {{- {'name': call['name'], 'arguments': call['arguments']} | tojson | replace('<', SEALED) + '\\n' -}}
        {%- endfor -%}
        {{- (END_TOOL_CALLS if calls else '') + ('' if open else EOS) -}}
        {%- endgeneration -%}
    {%- else -%}{{- raise_exception('a role is system (first), user, assistant or tool') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT -}}{%- endif -%}
"""
