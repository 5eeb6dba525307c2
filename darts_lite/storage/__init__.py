"""Storage: bytes on disk, durable and untrusted: run folders, checkpoints, records, locks.

Here lives how files are written so that a kill loses nothing, and read so that they execute nothing. What they mean lives in runs/.
"""
