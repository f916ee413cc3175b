"""Every dashboard, in the order in which an operator opens them."""

from __future__ import annotations

from ops.dashboards.accounting_board import accounting_board
from ops.dashboards.capacity_board import capacity_board
from ops.dashboards.engine_board import engine_board
from ops.dashboards.pictures_board import pictures_board
from ops.dashboards.serving_board import serving_board

BOARDS = (serving_board, engine_board, pictures_board, accounting_board, capacity_board)
