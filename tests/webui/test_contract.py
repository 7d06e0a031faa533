from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hosts.contract import HostContract
from torch import nn

from embedding_estimate.hosts.webui.host import WebuiHost


class TestWebuiHost(HostContract):
    @pytest.fixture
    def host(self, webui: Any) -> WebuiHost:
        return WebuiHost()

    @pytest.fixture
    def modules(self, webui: Any) -> Sequence[nn.Module]:
        objects = getattr(webui.sd_model, "forge_objects", None)  # reForge's
        return [webui.sd_model] if objects is None else [objects.clip.cond_stage_model, objects.unet.model]
