"""What is shipped: the wheel, the names it owns, its declared dependencies, the documentation's links."""
