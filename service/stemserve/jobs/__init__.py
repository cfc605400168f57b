"""What is known of jobs, and what is on the disk of them."""
