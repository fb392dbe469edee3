"""The backbones of the paper's Table 2 and Appendix A.2: one file each, their shared parts beside them."""
