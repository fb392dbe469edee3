"""What the Triton kernels share: arithmetic inside a kernel, and whether they can run here."""
