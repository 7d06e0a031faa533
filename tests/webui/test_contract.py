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
        return [webui.sd_model]
