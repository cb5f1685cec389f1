"""What follows from measured curves: turning points, verdicts, claims and timing. Numpy and scipy only."""
