"""The live demo, in a browser: `ddpm demo`. It needs the extra `demo`."""
