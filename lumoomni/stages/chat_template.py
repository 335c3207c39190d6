"""How a model's own folder says that it is talked to, in the names of our templates.

Knows: where Hugging Face folders keep chat templates, and what tells those of ChatML and Qwen3.
Does not know: Jinja; a template is looked at, never run. Costs: one small file.
"""

import json
from pathlib import Path

from lumoomni.errors import InputError

OTHER = "none of ours"


def own_template(folder: Path) -> str | None:
    """`chatml`, `qwen3` or OTHER, as the folder's chat template says; None where there is none.

    Raises InputError for a tokenizer_config.json that is not valid JSON.
    """
    text = _text(folder)
    if text is None:
        return None
    if "<|im_start|>" not in text or "<|im_end|>" not in text:
        return OTHER
    if "<think>" not in text:
        return "chatml"
    # Who cannot be told to answer without a thought is talked to in neither way.
    return "qwen3" if "enable_thinking" in text else OTHER


def mismatch(folder: Path, template: str) -> str:
    """One sentence with both names where the folder's template is another; empty where not."""
    own = own_template(folder)
    if own is None or own == template:
        return ""
    advice = "" if own == OTHER else f", or set adopt_parts.template={own} if it was tuned to talk"
    return (
        f"{folder} comes with a chat template that is {own}, but sequences will be laid out as "
        f"{template}; that is right for a base model{advice}"
    )


def _text(folder: Path) -> str | None:
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}; get a whole copy") from error
    found = data.get("chat_template") if isinstance(data, dict) else None
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
