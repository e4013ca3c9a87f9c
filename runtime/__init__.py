"""The engine: a graph of stages, compiled to strands and run on one thread, many threads or many processes.

It knows nothing of backup. Read in this order: stage, plan, schedule (pure decisions, given as orders), drive (the
loop that obeys them through an executor's hands), lane (the work itself), then one executor: inline, threads or
cluster (Ray, with actors and host). `executors` is the front door; trace says where the time went.
"""
