"""Real regressions of transformers as planted faults, and the checks that notice them."""
