"""The course: its checks and figures, and what lets a learner write GPU kernels without a GPU and without fear."""
