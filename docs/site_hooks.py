"""Hooks of mkdocs: the link to the repository, and docstrings' roles of Sphinx."""

import re
import subprocess
from typing import Any


def on_config(config: Any) -> Any:
    """Link to where the checkout was cloned from, if that is a web address."""
    command = ['git', 'config', '--get', 'remote.origin.url']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    address = done.stdout.strip()
    if address.startswith('https://') and '@' not in address:
        config['repo_url'] = address.removesuffix('.git')
        config['repo_name'] = 'Repository'
    return config


def on_page_content(html: str, **_: object) -> str:
    """Show ``:func:`name``` as the code that it is."""
    return re.sub(r':(?:obj|class|func|meth):(?=<code>)', '', html)
