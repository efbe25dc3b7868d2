"""What finished trajectories come to: the vote, its grade, and when more of them cannot change it."""
