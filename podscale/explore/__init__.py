"""The explorer: a local page on which a design is changed by hand and its answer follows.

`state` is what the address holds, `designs` makes clusters and models of it, `answer` asks `parallel` for the numbers,
`view` writes them as HTML, and `app` serves the page.
"""
