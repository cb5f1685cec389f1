"""Error rates of the decision rule: false alarms and detections on synthetic profiles with known truth."""
