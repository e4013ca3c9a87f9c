"""The vault: room on the server for repositories, into which agents put and out of which they take nothing."""
