"""The viewer: a slide and its cells in the browser, served on this machine only. The one door to Starlette, uvicorn."""
