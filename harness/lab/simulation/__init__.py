"""How often the decision rule is wrong, and what it finds: its error rates on synthetic profiles of known truth."""
