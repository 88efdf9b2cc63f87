"""Lay out what the evaluation found: HTML, Markdown, JSON and the terminal."""
