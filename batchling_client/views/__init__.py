"""What people are shown of a deployment, as typed records without any framework.

The CLI prints them, `--json` spells them, Flower's pages show them. `why` and `next` say in words what a person would
otherwise have to put together from several keys.
"""
