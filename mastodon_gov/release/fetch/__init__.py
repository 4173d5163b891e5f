"""Runs on the builder (Python 3.13 standard library only): downloads all that an application's lock files name.

Nothing here knows which application it is. `python3 -m fetch < job.json` fills a directory:

    source/                     the application at the pinned commit
    gems/NAME-VERSION.gem       as `vendor/cache` of Bundler; a gem from git is a directory, NAME-<12 digits>
    npm/NAME/-/NAME-VERSION.tgz as a registry serves them: any web server on loopback makes it one
    node.tgz                    the Node runtime
    git/                        bare repositories, kept for the next run

What is finished lies under its final name and is only checked again; what broke off goes on where it stopped.
"""
