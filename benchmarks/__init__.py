"""Speeds and error rates, side by side with peers where there are any: `python -m benchmarks`.

Method: CPU seconds of the process and its children on one thread, ours and the peer in turns, the median
over rounds after one round to warm up. OpenMP waits passively: spinning threads would count as work.
"""
