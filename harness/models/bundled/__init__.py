"""The small trained checkpoints that ship with the project, and the script that trains them."""
