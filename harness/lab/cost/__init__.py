"""What measuring costs: the ways to read a model raced against each other, and the page that says so."""
