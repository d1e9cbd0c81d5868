"""Other networks through this pipeline: StarDist, Cellpose, InstanSeg, TorchScript, ONNX, and one's own."""
