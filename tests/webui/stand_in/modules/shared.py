from types import SimpleNamespace
from typing import Any

import torch

from modules.styles import StyleDatabase


class Options(SimpleNamespace):
    data = property(vars)

    def add_option(self, name: str, option: "OptionInfo") -> None:
        setattr(self, name, option.default)


class OptionInfo:
    def __init__(
        self, default: Any, label: str, component: Any = None, component_args: Any = None, section: Any = None
    ):
        self.default, self.label, self.section = default, label, section
        self.component, self.component_args, self.comment_after = component, component_args, ""

    def info(self, text: str) -> None:
        self.comment_after += text


class State:
    def __init__(self) -> None:
        self.job, self.job_count, self.textinfo = "", 0, None
        self.sampling_step = self.sampling_steps = 0
        self.interrupted = self.skipped = self.stopping_generation = False

    def begin(self) -> None:
        self.__init__()
        self.job = "(unknown)"

    def end(self) -> None:
        self.job, self.job_count = "", 0


opts = Options(
    CLIP_stop_at_last_layers=1,
    emphasis="Original",
    enable_prompt_comments=True,
    eta_ancestral=1.0,
    comma_padding_backtrack=0,
    extra_networks_default_multiplier=1.0,
    sd_lora="None",
    sd_noise_schedule="Default",
    token_merging_ratio=0.0,
)
cmd_opts = SimpleNamespace(
    embeddings_dir="no folder",
    api=True,
    nowebui=False,
    api_auth=None,
    gradio_auth=None,
    gradio_auth_path=None,
    hide_ui_dir_config=False,
    no_prompt_history=False,
    lowvram=False,
    medvram=False,
)
state = State()
sd_model: Any = None
device = torch.device("cpu")
loaded_hypernetworks: list[Any] = []


prompt_styles = StyleDatabase({"old": ("an old painting", "photo")})  # for the prompt, for the negative prompt
