"""The pages of batches in Flower: overview, batches, lanes and runs, read from Redis and never from Celery's events.

Of Flower they use four names: `flower.command.Flower`, `flower.views.BaseHandler`, and its templates `base.html` and
`navbar.html`. A test says which of them a new Flower lacks.
"""
