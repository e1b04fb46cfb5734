"""What people want of a GLM, one small file each, over the same filling and scoring."""
