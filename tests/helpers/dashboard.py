"""docs/grafana.json, and what it asks Prometheus for."""

from __future__ import annotations

import json
import re
from typing import Any

from paths import ROOT

BOARD: dict[str, Any] = json.loads((ROOT / "docs" / "grafana.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
# Of a query: a name before braces. Functions and groupings stand before parentheses.
METRIC = re.compile(r"([a-z_][a-z0-9_:]*)\{")


def metrics_of_the_dashboard() -> set[str]:
    """The names of all samples that the dashboard asks for."""
    return {name for query in QUERIES for name in METRIC.findall(query)}
