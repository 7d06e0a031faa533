"""A stand-in for the WebUI's package of this name: as much as the extension asks of it, and no more.

Written for the tests from what the extension uses, so that they run where there is no WebUI. The same tests run in real
ones, see `tests/webui/conftest.py`.
"""
