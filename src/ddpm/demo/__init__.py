"""The demo in the browser: `ddpm demo`. It needs the extra `demo`."""
