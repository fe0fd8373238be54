"""Writes canvas-text/tests/fixtures/chat.json: chats as transformers' apply_chat_template writes them down.

    /tmp/venv/bin/python tools/fixtures_chat.py [more templates]

The templates are ours, and use what published ones use: lists cut and joined, namespaces, methods of Python's strings, white
space on both sides of tags, strings over several lines, macros, loop controls, marks of what is to be learnt. Published ones
can be named behind, to compare those too; such a fixture is not to be committed.
"""

import json
import sys
from pathlib import Path

import jinja2
import tokenizers
import transformers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

FIXTURE = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures" / "chat.json"

TEMPLATES = {
    "thinks": r"""{%- if tools %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content.strip() + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set thought = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    "alternates": r"""{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default = "You know \"everything\", \
and it is so.\
\nA \\ and a new line." %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] if messages[0]['content'] is string else messages[0]['content'][0]['text'] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = default %}
    {%- set rest = messages %}
{%- endif %}
{{- '[SYSTEM]' + system + '[/SYSTEM]' }}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{%- set kept = [] %}
{%- for message in rest %}
    {%- if message["role"] not in ["tool", "result"] and not message.get("calls") %}
        {%- set kept = kept + [message] %}
    {%- endif %}
{%- endfor %}
{%- for message in rest %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("user and assistant must take turns: " + message['role']) }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if message == users[-1] %}{{ '[LAST]' }}{% endif %}
        {%- if message['content'] is string %}
            {{- '[INST]' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST]' }}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}{{- block['text'] }}{%- else %}{{- raise_exception('only text') }}{%- endif %}
            {%- endfor %}
            {{- '[/INST]' }}
        {%- endif %}
    {%- else %}
        {%- if message.content is string %}{{- message.content + eos_token }}{%- else %}{{- message.content[0].text ~ eos_token }}{%- endif %}
    {%- endif %}
{%- endfor %}
""",
    "blocks": """{% macro say(role, text) %}
<{{ role | upper }}>{{ text | trim }}
{% endmacro %}
{% if messages[0]['role'] == 'system' and messages|length == 1 %}{{ raise_exception('System role not supported') }}{% endif %}
{# what is not to be seen #}
Chat:
  {% for message in messages %}
    {% if message.content is not string %}{% continue %}{% endif %}
    {% if message.role == 'assistant' %}
      {% generation %}
{{ say('model', message.content) }}{{ eos_token }}
      {% endgeneration %}
    {% elif message.content == 'stop' %}
      {% break %}
    {% else %}
{{ say(message.role, message.content.replace('a', 'o').upper()) }}
    {% endif %}
  {% endfor %}
{{ messages | map(attribute='role') | join(', ') }} {{ messages[-1].role|tojson }} {{ unknown }}|{{ messages[0].unknown }}
{%- if add_generation_prompt -%}
  <MODEL>

{% endif %}
""",
}

CHATS = [
    [("user", "a red cat on a mat")],
    [("user", "")],
    [("system", "  You draw.\n"), ("user", "two\nlines, \"quotes\" & <tags> 東京 🐈 {{ no }} {% template %}")],
    [("system", ["You draw."]), ("user", ["a cat", " and a dog"])],
    [("user", "one"), ("assistant", "<think>\n\nhm\n</think>\n\nyes"), ("user", "two"), ("assistant", "<think>so</think>no")],
    [("user", "one"), ("assistant", "yes"), ("user", "<tool>it</tool>"), ("assistant", "no")],
    [("user", "one"), ("user", "stop"), ("assistant", "never")],
    [("system", "alone")],
]  # fmt: skip


def content(what):
    return what if isinstance(what, str) else [{"type": "text", "text": text} for text in what]


def main():
    plain = tokenizers.Tokenizer(WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")
    templates = TEMPLATES | {Path(name).name: Path(name).read_text() for name in sys.argv[1:]}
    rows = []
    for name, template in templates.items():
        for chat in CHATS:
            messages = [{"role": role, "content": content(what)} for role, what in chat]
            for options in ({}, {"add_generation_prompt": True}, {"add_generation_prompt": True, "enable_thinking": False}, {"add_generation_prompt": True, "enable_thinking": True}):
                row = {"template": name, "chat": chat, "generation": options.get("add_generation_prompt", False), "thinking": options.get("enable_thinking")}
                try:
                    row["text"] = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
                except (jinja2.TemplateError, TypeError, AttributeError) as error:
                    row["error"] = str(error) if type(error) is jinja2.TemplateError else ""  # what the template itself says
                rows.append(row)
    notes = {"transformers": transformers.__version__, "jinja2": jinja2.__version__, "script": "tools/fixtures_chat.py"}
    head = json.dumps({"notes": notes, "templates": templates})
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    FIXTURE.write_text(head[:-1] + ', "rows": [\n' + lines + "\n]}\n")
    print(len(rows), FIXTURE.stat().st_size, sum("error" in row for row in rows))


main()
