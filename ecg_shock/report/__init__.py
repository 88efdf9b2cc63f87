"""Write the results of an evaluation as HTML, Markdown and JSON, and print them."""
