import re
from types import SimpleNamespace
from typing import Any

from modules import shared

AlwaysVisible = object()


class Script:
    """What a script of an extension inherits."""


class ScriptStripComments(Script):
    def process(self, p: Any) -> None:
        if shared.opts.enable_prompt_comments:
            p.all_prompts = [re.sub("#.*", "", prompt) for prompt in p.all_prompts]


scripts_data = [SimpleNamespace(script_class=ScriptStripComments)]
