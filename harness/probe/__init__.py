"""What happens during the forward pass: similarity, attention and logit lens, reduced inside the hooks."""
