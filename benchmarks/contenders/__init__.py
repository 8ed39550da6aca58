"""The same work (:class:`benchmarks.work.ContenderModule`), written for each API as its users would write it."""
