"""The embedded population: a base and three experts, trained here in under a minute.

Text that ships with Python and items that are generated here are all it needs: no hub, no
account, no GPU. `training` builds the four models, `items` holds their benchmarks,
`corpus` the text to calibrate on.
"""
