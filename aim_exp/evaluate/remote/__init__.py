"""A model in another process: asked as if it were here (`model`), given weights (`weight_stream`).

`worker/` is that process's own side, also where it is an engine of vLLM's.
"""
