"""A checkpoint behind an OpenAI-compatible API, and in a terminal."""
