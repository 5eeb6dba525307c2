"""Drawing: cells as SVG, as raster images and in words.

Here live pictures of genotypes and of plain numbers. Nothing here knows of a training or a run folder.
"""
