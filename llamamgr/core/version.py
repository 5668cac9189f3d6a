"""The version of llamamgr, for every layer: the package itself names ``LlamaServer``, which is far above most of them."""

VERSION = "0.1.0"
