"""Statistics of measured curves: turning points, verdicts, claims and timing, with numpy and scipy only."""
