"""What a machine's GPU does for wsipipe, checked and measured in one command: ``python -m tests.gpu_check``."""
