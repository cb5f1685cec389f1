"""Real runs with nothing changed: their verdicts are false alarms of the decision rule."""
