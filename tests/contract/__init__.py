"""What llamamgr relies on in a llama-server; the same suite runs on the fake and on a real one."""
