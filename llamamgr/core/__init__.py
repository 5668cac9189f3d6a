"""Facts without I/O: errors, names, durations, config, recipes, cards, flags and the GGUF header."""
