"""From an ATen graph, as torch.export and torch.compile give it, to a tensor graph.

`rules` holds one table from ATen op to builder; `importer` walks a graph; `interface` says what goes in and out.
"""
