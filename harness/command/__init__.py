"""The command `vlm-phase`: measure, compare, report, and what this machine can measure."""
