"""What is asked of each track, and what it is called: settled before anything is sent."""
