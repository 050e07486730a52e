"""Pieces of content addressed by their hash: one narrow contract, the stores that keep it, the wrappers around them."""
