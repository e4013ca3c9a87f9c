"""The engine: a graph of stages, compiled to strands and run on one thread, many threads or many processes.

It knows nothing of backup. Read in this order: stage, plan, schedule (pure decisions), drive (the loop that obeys
them), then one executor: inline, threads or cluster (Ray).
"""
