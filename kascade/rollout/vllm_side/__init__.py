"""What runs in vLLM's own process and environment. It imports nothing of Kascade."""
