"""What agents, servers and the command line say to one another over the network, as validated models.

Bodies of requests are `Body`: an unknown field is an error, because it is a slip that would be lost in silence. Answers
are `Answer`: unknown fields are ignored, so that an older agent goes on with a newer server. All times are UTC.
"""
