"""What is asked, how it is found, and the segments that it is found in."""
