"""Every alert, and the two files that Prometheus loads.

Each compares values that exist at any time while the system runs (``Alert.reads``), so that silence
means "all is well" and never "nobody measured".
"""

from __future__ import annotations

from ops.dashboards.accounting_alerts import accounting_alerts
from ops.dashboards.alert import Alert
from ops.dashboards.objectives import OBJECTIVES, Objectives
from ops.dashboards.serving_alerts import serving_alerts


def alerts(objectives: Objectives = OBJECTIVES) -> tuple[Alert, ...]:
    return (*serving_alerts(objectives), *accounting_alerts(objectives))
