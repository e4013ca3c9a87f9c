"""What agents, servers and the command line say to one another over the network, as validated models."""
