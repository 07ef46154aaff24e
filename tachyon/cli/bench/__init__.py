"""`python -m tachyon bench`: what this machine does, side by side with what one would otherwise use."""
